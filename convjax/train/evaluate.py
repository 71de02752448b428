"""Building a run's step, checking it against the data, and scoring whole splits."""

import dataclasses
import functools
import traceback

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from convjax.data import splits
from convjax.data.loader import Batch, Resident, take
from convjax.data.sources import Split
from convjax.data.splits import DataInfo, Splits
from convjax.errors import UsageError
from convjax.train import optim, state
from convjax.train.checkpoint import Checkpoints, Which
from convjax.train.config import Config, duration_steps
from convjax.train.metrics import Evaluation, summarise
from convjax.train.run import Run
from convjax.train.state import TrainState
from convjax.train.step import Scores, Step


@dataclasses.dataclass(frozen=True)
class Plan:
    """A configuration's durations in steps.

    Attributes:
        steps: length of the run.
        warmup: length of the learning rate's warm-up.
        evaluate_every: steps between two evaluations of the validation split.
    """

    steps: int
    warmup: int
    evaluate_every: int

    @classmethod
    def of(cls, config: Config, info: DataInfo) -> "Plan":
        steps = functools.partial(duration_steps, steps_per_epoch=info.examples["train"] / config.train.batch_size)
        return cls(
            steps=max(steps("train.length", config.train.length), 1),
            warmup=steps("optim.warmup", config.optim.warmup),
            evaluate_every=max(steps("train.evaluate_every", config.train.evaluate_every), 1),
        )

    def evaluates_after(self, step: int) -> bool:
        """Says whether to evaluate after a step: at the end, and regularly until close before it."""
        return step == self.steps or (step % self.evaluate_every == 0 and self.steps - step > self.evaluate_every / 2)


def build(config: Config, info: DataInfo) -> tuple[Step, TrainState]:
    """Returns the step of a configuration, and the shapes of its state, without computing anything.

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
    rate = optim.schedule(config.optim, steps=plan.steps, warmup=plan.warmup)
    optimizer = optim.optimizer(config.optim, rate)
    step = Step(
        model=config.model,
        optimizer=optimizer,
        rate=rate,
        normalise=info.normalise,
        augment=config.data.augment,
        label_smoothing=config.train.label_smoothing,
        seed=config.seed,
    )
    count = config.train.batch_size
    numbers = jnp.zeros(count, jnp.int32)
    batch = jax.eval_shape(lambda: Batch(jnp.zeros((count, *info.image), jnp.uint8), numbers, numbers))
    try:
        shapes = jax.eval_shape(lambda: state.init(config.model, optimizer, info.image, config.seed))
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
        size = " x ".join(map(str, info.image))
        raise UsageError(
            f"the model cannot be built for images of {size}: {_place(error)}{type(error).__name__}: {error}"
        ) from error
    return step, shapes


def _place(error: Exception) -> str:
    """Returns `file:line: ` of the innermost frame outside of libraries, which is where a model's author must look."""
    own = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    return f"{own[-1].filename}:{own[-1].lineno}: " if own else ""


def load_data(config: Config) -> Splits:
    """Reads a configuration's data."""
    data = config.data
    return splits.load(data.name, directory=data.directory, image_size=data.image_size, validation=data.validation)


class Evaluator:
    """Scores splits with one compiled function."""

    def __init__(self, step: Step, class_names: tuple[str, ...], batch_size: int) -> None:
        self._class_names, self._batch_size = class_names, batch_size
        self._score = jax.jit(lambda state, images, labels, ids: step.evaluate(state, take(images, labels, ids)))

    def __call__(self, name: str, state: TrainState, split: Resident) -> Evaluation:
        """Evaluates a split: each example is scored exactly once."""
        parts = [self._score(state, split.images, split.labels, ids) for ids in split.batches(self._batch_size)]
        # The last batch is filled up; the surplus is cut off here.
        scores = Scores(*(np.concatenate(column)[: len(split)] for column in zip(*jax.device_get(parts), strict=True)))
        return summarise(name, scores, np.asarray(split.labels), self._class_names)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network read back from a run.

    Attributes:
        config: the run's configuration.
        info: what it knows of its data.
        step: its step functions.
        state: the state of the checkpoint.
        checkpoint: the checkpoint's step.
    """

    config: Config
    info: DataInfo
    step: Step
    state: TrainState
    checkpoint: int

    @classmethod
    def read(cls, run: Run, which: Which) -> "Trained":
        """Reads a checkpoint of a run.

        Raises:
            UsageError: there is no run, or no such checkpoint.
            RunError: the checkpoint is damaged.
        """
        config, info = run.read_config(), run.read_info()
        step, shapes = build(config, info)
        if not run.checkpoints.is_dir():
            raise UsageError(f"{run.path}: the run has no checkpoint yet")
        with Checkpoints(run.checkpoints, read_only=True) as checkpoints:
            number = checkpoints.step_of(which)
            return cls(config, info, step, checkpoints.restore(number, shapes), number)

    def evaluate(self, name: str, split: Split) -> Evaluation:
        """Evaluates a split of the run's data set."""
        evaluator = Evaluator(self.step, self.info.class_names, self.config.train.batch_size)
        return evaluator(name, self.state, Resident(split))

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the probability of each class, `[N, K]`, for uint8 images `[N, H, W, C]`."""
        softmax = jax.jit(lambda state, images: jax.nn.softmax(self.step.logits(state, images)))
        return np.asarray(softmax(self.state, images))
