"""Times the training step of several seeds as one program, by vmap, against the same steps one after the other.

    python benchmarks/seeds.py [NETWORK ...] [--seeds 4] [--repeats 7]

Both train the same states on the same batches; what they give is compared first. A repeat takes both in turn, so that
what else the machine does meets both; ratios of medians are printed, with the least and the largest of one repeat, by
the clock and by processor time, which other work on the machine hardly touches.
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from convjax.data.loader import Batch
from convjax.data.splits import Normalise
from convjax.models import MLP, CifarResNet, LeNet5, Model
from convjax.ops import cpu
from convjax.ops.cpu import native
from convjax.train import state as states
from convjax.train.step import Step

NETWORKS: dict[str, tuple[Model, int, tuple[int, int, int]]] = {
    "mlp": (MLP(hidden=(64,)), 64, (28, 28, 1)),
    "lenet5": (LeNet5(), 64, (28, 28, 1)),
    "resnet8_digits": (CifarResNet(depth=8, width=16), 64, (8, 8, 1)),
    "resnet8": (CifarResNet(depth=8, width=16), 64, (32, 32, 3)),
}
"""Networks with the batch size and the images that they are timed on."""


def compiled(network: str, seeds: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Returns by kind of kernels one step of all seeds: one after the other, and as one program."""
    model, batch_size, image = NETWORKS[network]
    rate = optax.constant_schedule(0.01)
    channels = image[-1]
    step = Step(model, optax.sgd(rate, momentum=0.9), rate, Normalise((0.5,) * channels, (0.25,) * channels))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (seeds, batch_size, *image)).astype(np.uint8)
    labels = rng.integers(0, 10, (seeds, batch_size)).astype(np.int32)
    ids = np.tile(np.arange(batch_size, dtype=np.int32), (seeds, 1))
    batches = [Batch(*map(jnp.asarray, row)) for row in zip(images, labels, ids, strict=True)]
    start = [jax.jit(lambda seed=seed: states.init(model, step.optimizer, image, seed))() for seed in range(seeds)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *start)
    all_batches = Batch(*map(jnp.asarray, (images, labels, ids)))
    programs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {}
    for kernels in get_args(cpu.Kernels):
        if kernels == "native" and native.unavailable():
            continue
        with cpu.switched_on(kernels):
            # Functions of their own: JAX keeps what it has lowered by function.
            single = jax.jit(lambda state, batch: step.train(state, batch)).lower(start[0], batches[0]).compile()
            mapped = jax.jit(jax.vmap(lambda state, batch: step.train(state, batch)))
            whole = mapped.lower(together, all_batches).compile()
        programs[kernels] = (
            functools.partial(_apart, single, list(zip(start, batches, strict=True))),
            functools.partial(_whole, whole, together, all_batches),
        )
    return programs


def _apart(program: Any, each: list[tuple[Any, Batch]]) -> Any:
    return jax.block_until_ready([program(state, batch) for state, batch in each])


def _whole(program: Any, states: Any, batches: Batch) -> Any:
    return jax.block_until_ready(program(states, batches))


def difference(apart: Any, together: Any) -> float:
    """Returns the largest difference of two results of a step, relative to the largest number of each array."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(apart))
    leaves = (jax.tree.leaves(tree) for tree in (stacked, jax.device_get(together)))
    pairs = [(np.float64(a), np.float64(b)) for a, b in zip(*leaves, strict=True)]
    return max(float(np.abs(a - b).max() / (np.abs(a).max() or 1)) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], metavar="NETWORK")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    for network in options.networks or NETWORKS:
        for kernels, (apart, together) in compiled(network, options.seeds).items():
            found = difference(apart(), together())
            taken: dict[str, list[tuple[float, float]]] = {"apart": [], "together": []}
            for repeat in range(options.repeats + 1):
                steps = (("apart", apart), ("together", together))
                for name, step in reversed(steps) if repeat % 2 else steps:
                    start = time.perf_counter(), time.process_time()
                    step()
                    if repeat:  # the first warms up
                        taken[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
            before, after = (np.array(taken[name]) for name in ("apart", "together"))
            ratios = before / after
            medians = np.median(before, axis=0) / np.median(after, axis=0)
            print(
                f"{network:15} {kernels:7} {options.seeds} seeds: together {medians[0]:.2f} x as fast by the clock "
                f"({ratios[:, 0].min():.2f} to {ratios[:, 0].max():.2f}), {medians[1]:.2f} x by processor time "
                f"({ratios[:, 1].min():.2f} to {ratios[:, 1].max():.2f}); largest difference {found:.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
