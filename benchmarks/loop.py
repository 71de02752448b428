"""How much of an epoch is spent outside of compiled programs, by the training loop itself.

    python benchmarks/loop.py [NETWORK ...] [--steps 40]

Trains on synthetic 32 x 32 images by `convjax.train.loop`, with one change: every dispatch is waited for. So what the
host does between two steps (which examples come, their ids to the device, metrics, log, progress), and would else do
while the device computes, all counts. Medians over steps, which what else the machine does hardly changes, as a share
of an epoch of 352 steps of 128 images with its evaluation of 40 batches, all of which counts as compiled, and its
checkpoint. What a run does once, at its end, does not count.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from convjax.allocator import SETTINGS
from convjax.models import create
from convjax.train import loop
from convjax.train.checkpoint import Checkpoints
from convjax.train.config import Config, DataConfig, TrainConfig
from convjax.train.evaluate import Evaluator
from convjax.train.parallel import Advance
from convjax.train.run import Run

STEPS, BATCHES = 352, 40
"""Of an epoch of CIFAR-10, less a tenth for validation."""


class Clock:
    """Notes when calls of a method begin and end; they end once what they return is there."""

    def __init__(self, owner: Any, name: str) -> None:
        self.spans: list[tuple[float, float]] = []
        original = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            result = jax.block_until_ready(original(*arguments, **options))
            self.spans.append((begin, time.perf_counter()))
            return result

        setattr(owner, name, timed)

    def seconds(self) -> list[float]:
        return [end - begin for begin, end in self.spans]

    def between(self) -> list[float]:
        """Seconds from the end of each call to the beginning of the next."""
        return [begin - end for (_, end), (begin, _) in zip(self.spans, self.spans[1:], strict=False)]


def measure(network: str, steps: int, dispatch: Clock, save: Clock, evaluate: Clock) -> None:
    """Trains a network and prints medians of its last epoch."""
    for clock in (dispatch, save, evaluate):
        clock.spans.clear()
    config = Config(
        model=create(network, num_classes=10),
        data=DataConfig("synthetic", validation=0.125),
        train=TrainConfig(length=f"{2 * steps} steps", batch_size=128, evaluate_every=f"{steps} steps"),
    )
    with tempfile.TemporaryDirectory() as directory:
        loop.train(config, Run(Path(directory) / "run"))
    inside = statistics.median(dispatch.seconds()[steps:])
    outside = statistics.median(dispatch.between()[steps:])
    checkpoint = save.seconds()[1]
    # Validation: 256 examples are two batches.
    evaluation = evaluate.seconds()[1] / 2 * BATCHES
    whole = STEPS * (inside + outside) + checkpoint + evaluation
    print(
        f"{network:12} step {1e3 * inside:8.2f} ms, between two {1e3 * outside:6.3f} ms, checkpoint "
        f"{1e3 * checkpoint:6.1f} ms: {100 * (STEPS * outside + checkpoint) / whole:.2f} % of an epoch",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["resnet20"], metavar="NETWORK")
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    if not SETTINGS.keys() & os.environ.keys():  # as `convjax train` does; they are read when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})
    clocks = Clock(Advance, "__call__"), Clock(Checkpoints, "save"), Clock(Evaluator, "scores")
    for network in options.networks:
        measure(network, options.steps, *clocks)


if __name__ == "__main__":
    main()
