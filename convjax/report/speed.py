"""How fast a run was trained, and what share that is of what the machine can do."""

import dataclasses
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax.inspect import count
from convjax.train import environment, events
from convjax.train.run import Run

_SIDE = 1024
_TIMES = 8


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


def matrix_peak(dtype: str) -> float:
    """Returns the operations a second of this device in the best of some products of two 1024 x 1024 matrices."""
    matrix = jnp.ones((_SIDE, _SIDE), dtype)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    best = float("inf")
    for _ in range(_TIMES):
        start = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * _SIDE**3 / best
