"""Times the training step by each kind of kernels for CPUs, one after the other, and prints ratios to stock XLA.

    python benchmarks/kernels.py [NETWORK ...] [--dtype bfloat16] [--repeats 7]

A repeat takes one step of each kind in turn, so that what else the machine does meets all of them; medians are printed,
and the ratio of the medians with the least and the largest ratio of one repeat.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from convjax.data.loader import Batch
from convjax.data.splits import Normalise
from convjax.models import create
from convjax.ops import cpu
from convjax.ops.cpu import native
from convjax.train import state as states
from convjax.train.step import Step

SIZES = {
    "lenet5": (128, 32, 1),
    "resnet20": (128, 32, 3),
    "densenet_bc_100_12": (32, 32, 3),
    "mobilenet_v2": (16, 224, 3),
    "resnet50": (16, 224, 3),
}
"""Networks with the batch size, side and channels of images that they are timed on."""


def compiled(network: str, dtype: str) -> dict[str, Callable[[], Any]]:
    """Returns the step of a network by each kind of kernels; each call takes the same step."""
    batch_size, side, channels = SIZES[network]
    model = create(network, num_classes=10, dtype=dtype)
    rate = optax.constant_schedule(0.01)
    step = Step(model, optax.sgd(rate, momentum=0.9), rate, Normalise((0.5,) * channels, (0.25,) * channels))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, side, side, channels)).astype(np.uint8)
    labels = rng.integers(0, 10, batch_size).astype(np.int32)
    batch = Batch(jnp.asarray(images), jnp.asarray(labels), jnp.arange(batch_size))
    state = jax.jit(lambda: states.init(model, step.optimizer, (side, side, channels), 0))()
    steps: dict[str, Callable[[], Any]] = {}
    for kernels in get_args(cpu.Kernels):
        if kernels == "native" and native.unavailable():
            continue
        with cpu.switched_on(kernels):
            # A function of its own: JAX keeps what it has lowered by function.
            program = jax.jit(lambda state, batch: step.train(state, batch)).lower(state, batch).compile()
        steps[kernels] = lambda program=program: jax.block_until_ready(program(state, batch))  # type: ignore[misc]
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=[*SIZES, []], metavar="NETWORK")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    for network in options.networks or SIZES:
        steps = compiled(network, options.dtype)
        seconds: dict[str, list[float]] = {kernels: [] for kernels in steps}
        for repeat in range(options.repeats + 1):
            for kernels, step in steps.items():
                start = time.perf_counter()
                step()
                if repeat:  # the first warms up
                    seconds[kernels].append(time.perf_counter() - start)
        stock = np.array(seconds["off"])
        for kernels, taken in seconds.items():
            ratios = stock / np.array(taken)
            print(
                f"{network:20} {options.dtype:9} {kernels:7} {np.median(taken):8.4f} s "
                f"{np.median(stock) / np.median(taken):6.2f} x off  ({ratios.min():.2f} to {ratios.max():.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
