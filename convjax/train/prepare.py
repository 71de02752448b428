"""What a run needs, read and checked before anything is computed or written."""

import functools
from pathlib import Path
from typing import NamedTuple

from convjax.data.splits import Splits
from convjax.errors import UsageError
from convjax.train import channels, resume, transfer
from convjax.train.config import Config
from convjax.train.evaluate import build, initial, load_data
from convjax.train.from_images import computed
from convjax.train.parallel import Placement
from convjax.train.run import Run
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
    """

    data: Splits
    placement: Placement
    step: Step
    shapes: TrainState
    start: Start | None

    def initial(self, config: Config) -> TrainState:
        """Returns the state before the first step."""
        assert self.start or config.train.init_from is None, "a run that has no checkpoint needs its weights"
        make = functools.partial(initial, config, self.step, self.data.info)
        taken = computed(config, self.data.splits["train"], self.step.normalise)
        return self.placement.initial(make, taken | dict(self.start.taken if self.start else {}))


def prepare(config: Config, run: Run, experiment: Path | None) -> Prepared:
    """Reads data and weights and builds the step, without computing or writing anything.

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
    data = load_data(config)
    if exists and not data.info.same_data(run.read_info()):
        raise UsageError(
            f"{run.path} was trained on other data than {data.info.name} {data.info.version} as it is now "
            f"(compare data.json there): take another --workdir"
        )
    if exists:
        data = data.normalised(run.read_info().normalise)
    elif weights:
        data = data.normalised(channels.normalisation(weights.normalise, data.info.image[-1]))
    placement = Placement.of(config)
    step, shapes = build(config, data.info, placement)
    start = transfer.fit(weights, config, shapes, data.info) if weights else None
    return Prepared(data, placement, step, shapes, start)
