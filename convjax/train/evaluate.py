"""Building a run's step, checking it against the data, and scoring whole splits."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convjax.data import loader, splits
from convjax.data.loader import Batch, Feed
from convjax.data.records import Training
from convjax.data.sources import Split
from convjax.data.splits import DataInfo, Splits
from convjax.errors import UsageError, model_error
from convjax.ops import cpu
from convjax.train import freeze, optim, state
from convjax.train.checkpoint import Checkpoints, Which
from convjax.train.config import Config
from convjax.train.freeze import Freeze
from convjax.train.losses import Loss
from convjax.train.metrics import Evaluation, summarise
from convjax.train.parallel import Placement
from convjax.train.plan import Plan
from convjax.train.run import Run
from convjax.train.schedule import ending, schedule
from convjax.train.scores import Scores
from convjax.train.sizes import Sizes
from convjax.train.state import TrainState
from convjax.train.step import Step
from convjax.train.views import Views


def build(config: Config, info: DataInfo, placement: Placement) -> tuple[Step, TrainState]:
    """Returns the step of a configuration, and shapes and places of its state, without computing anything.

    Raises:
        UsageError: the model does not fit the data, or the optimizer not the model.
    """
    classes = len(info.class_names)
    named = getattr(config.model, "num_classes", classes)
    if named != classes:
        raise UsageError(f"model.num_classes is {named}: data set {info.name!r} has {classes} classes")
    if config.train.batch_size > info.examples["train"]:
        raise UsageError(
            f"train.batch_size is {config.train.batch_size}: it must be at most {info.examples['train']}, "
            f"the examples in the train split of {info.name!r}"
        )
    plan = Plan.of(config, info)
    rate = schedule(config.optim, steps=plan.steps, warmup=plan.warmup)
    ends = [ending(config.optim, steps=steps, warmup=plan.warmup) for steps in plan.ends]
    optimizer = optim.optimizer(config.optim, rate, ends)
    step = Step(
        model=config.model,
        optimizer=optimizer,
        rate=rate,
        normalise=info.normalise,
        augment=config.data.augment,
        criterion=Loss(config.train.loss_function, config.train.label_smoothing, config.train.loss_threshold),
        ema=config.train.ema,
        seed=config.seed,
        accumulate=config.train.accumulate,
        groups=placement.groups,
        synchronised=config.parallel.batch_stats == "global",
        freeze=Freeze(config.optim.freeze, config.optim.freeze_statistics),
        sharpness=config.optim.sharpness,
        sizes=Sizes(config.train.sizes, plan.sizes_at),
    )
    count = config.train.batch_size
    numbers = jnp.zeros(count, jnp.int32)
    batch = jax.eval_shape(lambda: Batch(jnp.zeros((count, *info.image), jnp.uint8), *3 * [numbers]))
    try:
        shapes = jax.eval_shape(lambda: initial(config, step, info))
        freeze.check(config.optim, shapes.params)
        logits = jax.eval_shape(step.logits, shapes, batch.images)
        if logits.shape != (count, classes):
            raise UsageError(
                f"the model turns {count} images into logits of shape {logits.shape}: "
                f"data set {info.name!r} has {classes} classes, it must be {(count, classes)}"
            )
        jax.eval_shape(step.train, shapes, batch)
    except UsageError:
        raise
    except Exception as error:  # whatever the model's author, or its fields, got wrong
        raise model_error(error, info.image) from error
    return step, placement.shapes(shapes)


def initial(
    config: Config,
    step: Step,
    info: DataInfo,
    taken: Mapping[str, Any] = MappingProxyType({}),
    seed: int | jax.Array | None = None,
) -> TrainState:
    """Returns the state before the first step, with `taken` of existing weights; see `convjax.train.state.init`.

    The seed is the configuration's, unless another is given.
    """
    seed = config.seed if seed is None else seed
    return state.init(config.model, step.optimizer, info.image, seed, ema=bool(config.train.ema), taken=taken)


def begin(
    config: Config, step: Step, info: DataInfo, placement: Placement, taken: Mapping[str, Any] = MappingProxyType({})
) -> TrainState:
    """Returns the state before the first step, computed where it is to lie.

    The seed is an argument of what is compiled: runs that differ in it alone share the program.
    """

    def make(seed: jax.Array, taken: Mapping[str, Any]) -> TrainState:
        return initial(config, step, info, taken, seed)

    return placement.initial(make, np.uint32(config.seed), dict(taken))


def load_data(config: Config) -> Splits:
    """Reads a configuration's data; opens them alone where they are streamed."""
    data = config.data
    return splits.load(
        data.name,
        directory=data.directory,
        image_size=data.image_size,
        examples=data.examples,
        validation=data.validation,
        few=data.few,
        lazy=data.feed == "streamed",
        crop=data.crop,
        training=Training(data.resized_crop, config.seed) if data.resized_crop.area else None,
        broken_limit=data.broken_limit,
    )


def load_same_data(config: Config, info: DataInfo, run: Run) -> Splits:
    """Reads the data of a run, normalised as it does.

    Raises:
        UsageError: they are no longer what the run was trained on.
    """
    data = load_data(config)
    if not data.info.same_data(info):
        raise UsageError(
            f"data set {data.info.name} {data.info.version} is not as it was when {run.path} was trained: "
            f"compare {run.path / 'data.json'}"
        )
    return data.normalised(info.normalise)


class Evaluator:
    """Scores splits with one compiled function for each kind of feed."""

    def __init__(self, step: Step, class_names: tuple[str, ...], batch_size: int, placement: Placement) -> None:
        self._class_names, self._placement = class_names, placement
        # Filled up so that it can be divided; the surplus is cut off as that of the last batch is.
        self._batch_size = -(-batch_size // placement.devices) * placement.devices
        self._score = jax.jit(
            lambda state, held, given, read: step.evaluate(state, read(held, given)), static_argnames="read"
        )

    def __call__(
        self, name: str, state: TrainState, split: Feed, after_batch: Callable[[], None] = lambda: None
    ) -> Evaluation:
        """Evaluates a split, called `name`; the other arguments are those of `scores`."""
        return summarise(name, self.scores(state, split, after_batch), split.labels, self._class_names)

    @cpu.switched_on()
    def scores(self, state: TrainState, split: Feed, after_batch: Callable[[], None] = lambda: None) -> Scores:
        """Returns the scores of a split's examples, each of them scored exactly once.

        Args:
            state: what to evaluate.
            split: its examples.
            after_batch: called after each batch; may raise something to give up.
        """
        ids, count = loader.in_order(len(split), self._batch_size)
        parts: list[Scores] = []
        for given in split.batches(ids, 0, count):
            parts.append(self._score(state, split.held, given, read=split.read))
            # A batch is waited for after the next one is dispatched: the device has work while the host waits.
            if len(parts) > 1:
                jax.block_until_ready(parts[-2])
            after_batch()
        # The last batch was filled up; the surplus is cut off here.
        whole = self._placement.collect(parts)
        return Scores(*(np.concatenate(column)[: len(split)] for column in zip(*whole, strict=True)))


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network read back from a run.

    Attributes:
        config: the run's configuration.
        info: what it knows of its data.
        step: its step functions.
        state: the state of the checkpoint.
        checkpoint: the checkpoint's step.
        placement: where its arrays lie.
    """

    config: Config
    info: DataInfo
    step: Step
    state: TrainState
    checkpoint: int
    placement: Placement

    @classmethod
    def read(cls, run: Run, which: Which) -> "Trained":
        """Reads a checkpoint of a run.

        Raises:
            UsageError: there is no run, or no such checkpoint.
            RunError: the checkpoint is damaged.
        """
        config, info = run.read_config(), run.read_info()
        placement = Placement.single()
        step, shapes = build(config, info, placement)
        if not run.checkpoints.is_dir():
            raise UsageError(f"{run.path}: the run has no checkpoint yet")
        with Checkpoints(run.checkpoints, run.accuracies(), read_only=True) as checkpoints:
            saved = checkpoints.restore(which, shapes)
            return cls(config, info, step, saved.state, saved.step, placement)

    def seen_as(self, views: Views) -> "Trained":
        """Returns the network with its logits averaged over views of each image."""
        return dataclasses.replace(self, step=dataclasses.replace(self.step, views=views))

    def evaluate(self, name: str, split: Split) -> Evaluation:
        """Evaluates a split of the run's data set."""
        return summarise(name, self.scores(split), split.labels, self.info.class_names)

    def scores(self, split: Split) -> Scores:
        """Returns the scores of each example of a split."""
        evaluator = Evaluator(self.step, self.info.class_names, self.config.train.batch_size, self.placement)
        return evaluator.scores(self.state, loader.feed(self.config.data.feed, split, self.placement))
