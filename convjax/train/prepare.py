"""What a run needs, read and checked before anything is computed or written."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from convjax.data import loader
from convjax.data.loader import Feed
from convjax.data.splits import Splits
from convjax.errors import UsageError
from convjax.train import channels, resume, transfer
from convjax.train.config import Config
from convjax.train.evaluate import Evaluator, begin, build, load_data
from convjax.train.from_images import computed
from convjax.train.parallel import Advance, Placement
from convjax.train.run import Run
from convjax.train.stack import Lane
from convjax.train.state import TrainState
from convjax.train.step import Step
from convjax.train.transfer import Start


class Prepared(NamedTuple):
    """What a run needs, read and checked.

    Attributes:
        data: its splits.
        placement: where its arrays lie.
        step: its step functions.
        shapes: of the arrays of its state.
        start: the weights that it begins with, if it does with some and they are needed or still there.
        seeds: of all runs that are trained as one program with this one; empty where it is trained alone.
    """

    data: Splits
    placement: Placement
    step: Step
    shapes: TrainState
    start: Start | None
    seeds: tuple[int, ...] = ()

    def initial(self, config: Config) -> TrainState:
        """Returns the state before the first step."""
        assert self.start or config.train.init_from is None, "a run that has no checkpoint needs its weights"
        taken = computed(config, self.data.splits["train"], self.step.normalise)
        taken |= dict(self.start.taken if self.start else {})
        return begin(config, self.step, self.data.info, self.placement, taken)


class Equipment(NamedTuple):
    """What a run trains with.

    Attributes:
        feeds: its splits that have examples, by name.
        evaluator: scores them.
        advance: takes its steps.
    """

    feeds: dict[str, Feed]
    evaluator: Evaluator
    advance: Advance | Lane


def equip(config: Config, prepared: Prepared) -> Equipment:
    """Puts the data where they are to lie, and prepares to compile the steps of a run that is trained alone."""
    data, placement, step = prepared.data, prepared.placement, prepared.step
    feeds = {name: loader.feed(config.data.feed, split, placement) for name, split in data.splits.items() if len(split)}
    evaluator = Evaluator(step, data.info.class_names, config.train.batch_size, placement)
    return Equipment(feeds, evaluator, Advance(placement, step, feeds["train"], prepared.shapes))


def prepare(config: Config, run: Run, experiment: Path | None, like: Prepared | None = None) -> Prepared:
    """Reads data and weights and builds the step, without computing or writing anything.

    Args:
        config: the experiment.
        run: where it lives.
        experiment: the file that defines it.
        like: what was prepared for another run that differs in the seed alone, whose data and shapes serve here too.

    Raises:
        UsageError: the configuration, the data, the weights or the directory is wrong.
        RunError: the weights are damaged.
    """
    run.check()
    config.wandb.require()
    exists = run.exists()
    if exists:
        resume.check(config, run, experiment)
    weights = transfer.find(config, run)
    data = like.data if like else load_data(config)
    if exists and not data.info.same_data(run.read_info()):
        raise UsageError(
            f"{run.path} was trained on other data than {data.info.name} {data.info.version} as it is now "
            f"(compare data.json there): take another --workdir"
        )
    if exists:
        data = data.normalised(run.read_info().normalise)
    elif weights:
        data = data.normalised(channels.normalisation(weights.normalise, data.info.image[-1]))
    if like:
        placement, step, shapes = like.placement, dataclasses.replace(like.step, seed=config.seed), like.shapes
    else:
        placement = Placement.of(config)
        step, shapes = build(config, data.info, placement)
    start = transfer.fit(weights, config, shapes, data.info) if weights else None
    return Prepared(data, placement, step, shapes, start)
