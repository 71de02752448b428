"""How fast a run was trained, and what share that is of what the machine can do."""

import dataclasses
import statistics

import flax.linen as nn

from convjax.inspect import count
from convjax.profile.machine import matrix_peak
from convjax.train import environment, events
from convjax.train.run import Run


@dataclasses.dataclass(frozen=True)
class Speed:
    """Attributes:
    images: median over the log of images a second.
    operations: floating-point operations a second that they come to.
    peak: those of a matrix product on this machine, None where the run was made on another one.
    """

    images: float
    operations: float
    peak: float | None

    @property
    def share(self) -> float | None:
        """Share of the peak."""
        return None if self.peak is None else self.operations / self.peak


def speed(run: Run, model: nn.Module, image: tuple[int, int, int]) -> Speed | None:
    """Returns a run's speed, None where it logged none.

    A multiply-accumulate is two operations; a training step takes three times those of an evaluation, for the
    gradients by the activations and by the parameters cost as much each.
    """
    logged = [rate for rate in events.rates(run.path).values() if rate > 0]
    if not logged:
        return None
    images = statistics.median(logged)
    now = environment.numerical(environment.describe(None))["machine"]
    then = environment.numerical(run.read_json("environment.json"))["machine"]
    same = now == then
    dtype = getattr(model, "dtype", "float32")
    peak = matrix_peak(dtype) * len(now["devices"]) if same else None
    return Speed(images, 6 * count.multiply_accumulates(model, image) * images, peak)
