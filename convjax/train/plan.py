"""A configuration's durations in steps."""

import dataclasses
import functools

from convjax.data.order import Draws
from convjax.data.splits import DataInfo
from convjax.train.config import Config, duration_steps
from convjax.train.values import parse_end


def draws(config: Config, examples: int) -> Draws:
    """Returns which example comes when, in a run with so many of them in the train split."""
    return Draws(config.seed, config.train.batch_size, examples, config.data.augment.repeats)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A configuration's durations in steps.

    Attributes:
        steps: length of the run.
        warmup: length of the learning rate's warm-up.
        evaluate_every: steps between two evaluations of the validation split.
        checkpoint_every: steps between two checkpoints besides those of evaluations, None for no others.
        sizes_at: steps at which training images become the second and the following size.
        ends: lengths of the schedules of `optim.ends`, in their order.
    """

    steps: int
    warmup: int
    evaluate_every: int
    checkpoint_every: int | None = None
    sizes_at: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: Config, info: DataInfo) -> "Plan":
        steps = functools.partial(duration_steps, steps_per_epoch=info.examples["train"] / config.train.batch_size)
        every = config.train.checkpoint_every
        length = max(steps("train.length", config.train.length), 1)
        return cls(
            steps=length,
            warmup=steps("optim.warmup", config.optim.warmup),
            evaluate_every=max(steps("train.evaluate_every", config.train.evaluate_every), 1),
            checkpoint_every=None if every is None else max(steps("train.checkpoint_every", every), 1),
            sizes_at=tuple(round(share * length) for share in config.train.sizes_at),
            ends=tuple(max(steps("optim.ends", parse_end("optim.ends", end)[1]), 1) for end in config.optim.ends),
        )

    def evaluates_after(self, step: int) -> bool:
        """Says whether to evaluate after a step: at the end, and regularly until close before it."""
        return step == self.steps or (step % self.evaluate_every == 0 and self.steps - step > self.evaluate_every / 2)

    def saves_after(self, step: int) -> bool:
        """Says whether to save a checkpoint after a step: before each evaluation, and where asked for."""
        return self.evaluates_after(step) or bool(self.checkpoint_every and step % self.checkpoint_every == 0)
