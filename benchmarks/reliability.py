"""What it costs that a run cannot be lost: digests, the guarded update, and logs on disk before checkpoints.

    python benchmarks/reliability.py [EXPERIMENT] [--pairs 60]

Prints, for the experiment (experiments/fashion_mnist.py if none is given), the time of a training step with and
without the guard against losses that are not finite, taken in turn; what a checkpoint adds with and without its
record of digests; and both as a share of an epoch, with a checkpoint after each.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from convjax.data import loader
from convjax.errors import UsageError
from convjax.ops import cpu
from convjax.train import experiment
from convjax.train.checkpoint import Checkpoints
from convjax.train.evaluate import build, initial, load_data
from convjax.train.log import MetricsLog
from convjax.train.parallel import Advance, Placement
from convjax.train.plan import draws
from convjax.train.record import arrays


def timed(call: Callable[[], Any]) -> float:
    """Returns the seconds that a call takes until its result is there."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def spread(ratios: list[float]) -> str:
    low, _, high = statistics.quantiles(ratios, n=4)
    return f"{statistics.median(ratios):.4f} (quartiles {low:.4f} to {high:.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", type=Path, default=Path("experiments/fashion_mnist.py"))
    parser.add_argument("--pairs", type=int, default=60, help="steps of each kind (default 60)")
    arguments = parser.parse_args()
    try:
        config = experiment.load(arguments.experiment)
        data = load_data(config)
    except UsageError as error:
        print(f"benchmarks/reliability.py: {error}", file=sys.stderr)
        sys.exit(2)
    placement = Placement.of(config)
    step, shapes = build(config, data.info, placement)
    feed = loader.feed(config.data.feed, data.splits["train"], placement)
    given = next(iter(feed.batches(draws(config, len(feed)).ids, 0, 1)))
    steps = {name: Advance(placement, step, feed, shapes) for name in ("guarded", "plain")}
    states = {name: placement.initial(lambda: initial(config, step, data.info)) for name in steps}

    def advance(name: str) -> Any:
        states[name], metrics = steps[name](states[name], given)
        return metrics

    with cpu.switched_on():
        advance("guarded")
        # What is always finite needs no guard: XLA takes the choice between old and new state out.
        with mock.patch("jax.numpy.isfinite", return_value=np.True_):
            advance("plain")
    pairs = []
    for i in range(arguments.pairs):
        times = {name: timed(partial(advance, name)) for name in sorted(steps, reverse=bool(i % 2))}
        pairs.append((times["guarded"], times["plain"]))
    guard = statistics.median(a / b for a, b in pairs)
    seconds = statistics.median(b for _, b in pairs)
    epoch = seconds * len(feed) / config.train.batch_size
    print(f"step without the guard {1000 * seconds:.1f} ms, an epoch {epoch:.1f} s of steps")
    print(f"step with the guard, as a ratio: {spread([a / b for a, b in pairs])}")

    state = states["guarded"]
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    digests, saves, syncs = [], [], []
    with (
        tempfile.TemporaryDirectory() as directory,
        MetricsLog(Path(directory)) as log,
        Checkpoints(Path(directory) / "checkpoints", {}) as checkpoints,
    ):
        for number in range(1, 6):
            log.write(number, {"train.loss": 1.0})
            digests.append(timed(partial(arrays, state)))
            syncs.append(timed(log.sync))
            saves.append(timed(partial(checkpoints.save, state.replace(step=np.int32(number)), log.sync())))
            checkpoints.wait()
    digest, save, sync = (1000 * statistics.median(times) for times in (digests, saves, syncs))
    print(f"a checkpoint of {size / 1e6:.1f} MB: digests {digest:.1f} ms, log to disk {sync:.1f} ms, the loop waits")
    print(f"  {save:.1f} ms for the start of a save, digests included")
    share = (guard - 1) + (digest + sync) / 1000 / epoch
    print(f"guard, digests and log, with a checkpoint each epoch: {100 * share:.2f} % of the steps' time")


if __name__ == "__main__":
    main()
