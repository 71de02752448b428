"""What this machine's accelerators do with a training step; for a CPU too, which it takes where there is nothing else.

    python benchmarks/accelerator.py [modes] [precisions] [dispatches]

modes: ten steps of a residual network on digits, with augmentation, dropout, stochastic depth, label smoothing and
moving averages, in each way to run on all devices, against the same steps on this machine's processor. By default
accelerators multiply float32 in fewer bits, as PyTorch lets them; the comparison is made both so and in full.

precisions: 200 steps of ResNet-20 on digits in float32, bfloat16 and float16 with its dynamic loss scale.

dispatches: microseconds of a step of small networks with 128 images, one step in a dispatch as the training loop has
it (metrics are read one step late), and with ten of them in one dispatch, by a scan.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from peers import loop

from convjax.data import splits
from convjax.data.augment import Augment, HorizontalFlip, RandomCrop
from convjax.models import ResNet, create
from convjax.ops import cpu
from convjax.profile.steps import Started, start
from convjax.train.config import Config, DataConfig, Mode, OptimConfig, ParallelConfig, TrainConfig
from convjax.train.evaluate import load_data
from convjax.train.plan import draws

RESIDUAL = Config(
    model=ResNet(block="basic", stage_sizes=(1,), width=8, stem="cifar", dropout=0.2, drop_path=0.2, activation="silu"),
    data=DataConfig("digits", augment=Augment(RandomCrop(1), HorizontalFlip(0.5))),
    optim=OptimConfig(lr=0.05, schedule="constant"),
    train=TrainConfig(batch_size=64, length="10 steps", label_smoothing=0.1, ema=0.9),
)
KINDS = ("params", "batch_stats", "opt_state", "ema")
TOGETHER, DISPATCHED = 10, 300
"""Steps in one dispatch, and steps that are timed."""


def stepped(config: Config, steps: int) -> tuple[dict[str, float], Any]:
    """Takes steps, and returns the last one's metrics and the state after it."""
    started = start(config, load_data(config))
    state, metrics = started.state, dict[str, jax.Array]()
    drawn = draws(config, len(started.feed))
    with cpu.switched_on():
        for given in started.feed.batches(drawn.ids, 0, steps, drawn.epochs):
            state, metrics = started.advance(state, given)
    return started.advance.read(metrics), jax.device_get(started.advance.leave(state))


def arrays(state: Any) -> list[Any]:
    return [np.asarray(x) for kind in KINDS for x in jax.tree.leaves(getattr(state, kind))]


def distance(ours: list[Any], reference: list[Any]) -> float:
    """Returns the largest difference of any array, as a share of its largest value."""
    return max(
        float(np.abs(x.astype(np.float64) - y).max() / max(np.abs(y).max(), 1e-12))
        for x, y in zip(ours, reference, strict=True)
    )


def modes() -> None:
    print(f"Ten steps on {jax.device_count()} x {jax.devices()[0].device_kind}, differences from a CPU\n")
    print("| mode | in full float32 | as by default |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "reference.npz"
        command = [sys.executable, __file__, "--reference", str(file)]
        subprocess.run(command, check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
        with np.load(file) as stored:
            reference = [stored[name] for name in sorted(stored.files, key=int)]
    for mode in get_args(Mode):
        config = dataclasses.replace(RESIDUAL, parallel=ParallelConfig(mode=mode))
        with jax.default_matmul_precision("highest"):
            full = arrays(stepped(config, 10)[1])
        usual = arrays(stepped(config, 10)[1])
        print(f"| {mode} | {distance(full, reference):.1e} | {distance(usual, reference):.1e} |", flush=True)


def write_reference(file: Path) -> None:
    with jax.default_matmul_precision("highest"):
        _, state = stepped(dataclasses.replace(RESIDUAL, parallel=ParallelConfig(devices=1)), 10)
    np.savez(file, **{str(number): array for number, array in enumerate(arrays(state))})


def precisions() -> None:
    print("\nResNet-20 on digits, 200 steps\n")
    print("| | loss of the last | gradient norm of the last | loss scale |\n|---|---:|---:|---:|")
    for dtype in ("float32", "bfloat16", "float16"):
        config = Config(
            model=create("resnet20", num_classes=10, dtype=dtype),
            data=DataConfig("digits"),
            train=TrainConfig(batch_size=64, length="200 steps"),
        )
        metrics, _ = stepped(config, 200)
        scale = metrics.get("loss_scale")
        print(
            f"| {dtype} | {metrics['loss']:.4f} | {metrics['gradient_norm']:.3f} | "
            f"{'-' if scale is None else f'{scale:.0f}'} |",
            flush=True,
        )


def dispatches() -> None:
    print(
        f"\nA step of 128 images of 32 x 32 pixels, microseconds\n\n"
        f"| network | one in a dispatch | {TOGETHER} in a dispatch | times as fast |\n|---|---:|---:|---:|"
    )
    for name in ("mlp", "lenet5", "resnet20"):
        config = Config(
            model=create(name, num_classes=10),
            data=DataConfig("synthetic"),
            train=TrainConfig(batch_size=128, length=f"{DISPATCHED} steps"),
            parallel=ParallelConfig(devices=1),
        )
        data = load_data(config)
        one, many = _one(config, data), _many(config, data)
        print(f"| {name} | {1e6 * one:.0f} | {1e6 * many:.0f} | {one / many:.2f} |", flush=True)


def _given(started: Started) -> list[Any]:
    drawn = draws(started.config, len(started.feed))
    return list(started.feed.batches(drawn.ids, 0, DISPATCHED, drawn.epochs))


def _one(config: Config, data: splits.Splits) -> float:
    """Returns seconds of a step as the training loop takes it."""
    started = start(config, data)
    given, advance, state = _given(started), started.advance, started.state

    def epoch() -> None:
        nonlocal state
        state = loop.steps(advance, advance.read, state, given)

    return _best(epoch)


def _many(config: Config, data: splits.Splits) -> float:
    """Returns seconds of a step with several in one dispatch."""
    started = start(config, data)
    given, step, feed, state = _given(started), started.step, started.feed, started.state
    held = feed.held
    stacked = [
        jax.tree.map(lambda *x: jnp.stack(x), *given[first : first + TOGETHER])
        for first in range(0, DISPATCHED, TOGETHER)
    ]

    def together(state: Any, held: Any, batches: Any) -> Any:
        return lax.scan(lambda state, batch: step.train(state, feed.read(held, batch)), state, batches)

    call = jax.jit(together, donate_argnums=0)

    def epoch() -> None:
        nonlocal state
        state = loop.steps(lambda state, batches: call(state, held, batches), jax.device_get, state, stacked)

    return _best(epoch)


def _best(epoch: Callable[[], None]) -> float:
    """Returns seconds of a step in the fastest of some epochs, after one that compiles."""
    with cpu.switched_on():
        epoch()
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            epoch()
            seconds.append(time.perf_counter() - began)
    return min(seconds) / DISPATCHED


PARTS = {"modes": modes, "precisions": precisions, "dispatches": dispatches}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reference:
        write_reference(options.reference)
        return
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    for part in options.parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
