"""What this machine reaches at best: operations a second of a matrix product, bytes a second of memory."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from convjax.ops import cpu

_TIMES = 8


def _side() -> int:
    """Returns the rows and columns of a matrix; on an accelerator a product must take longer than to hand it over."""
    return 1024 if jax.default_backend() == "cpu" else 8192


def _bytes() -> int:
    """Returns the size of an array, more than caches hold; on an accelerator see `_side`."""
    return 2**28 if jax.default_backend() == "cpu" else 2**31


@dataclasses.dataclass(frozen=True)
class Machine:
    """Attributes:
    peak: operations a second of a matrix product.
    bandwidth: bytes a second, read and written.
    """

    peak: float
    bandwidth: float

    def arithmetic(self, multiply_accumulates: float) -> float:
        """Returns the seconds that so many take at least; each is two operations."""
        return 2 * multiply_accumulates / self.peak

    def memory(self, count: float) -> float:
        """Returns the seconds that so many bytes take at least."""
        return count / self.bandwidth


def measure(dtype: str, devices: int = 1) -> Machine:
    """Returns what so many devices like this one reach together."""
    return Machine(matrix_peak(dtype) * devices, bandwidth() * devices)


def matrix_peak(dtype: str) -> float:
    """Returns the operations a second of this device in the best of some products of two large square matrices.

    Multiplied by XLA, and as a 1 x 1 convolution by the kernels that training uses: on a CPU XLA has no bfloat16.
    """
    side = _side()
    # Random: some accelerators are faster with numbers that are all alike.
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
    pixels, kernel = matrix.reshape(1, 32, side // 32, side), matrix.reshape(1, 1, side, side)
    with cpu.switched_on():
        product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
        convolved = jax.jit(_pointwise).lower(pixels, kernel).compile()
    best = min(_best(lambda: product(matrix, matrix)), _best(lambda: convolved(pixels, kernel)))
    return 2 * side**3 / best


def _pointwise(pixels: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(pixels, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def bandwidth() -> float:
    """Returns the bytes a second that this device reads and writes when it changes a large array in place."""
    count = _bytes()
    array = jnp.zeros(count // 4, jnp.float32)
    change = jax.jit(lambda array: array + 1, donate_argnums=0)

    def call() -> Any:
        nonlocal array
        array = change(array)
        return array

    return 2 * count / _best(call)


def _best(call: Callable[[], Any]) -> float:
    """Returns the seconds of the fastest of some calls, after one that warms up."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return min(seconds)
