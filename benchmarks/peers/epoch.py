"""An epoch end to end, through each side's usual data path: LeNet-5 on Fashion-MNIST, evaluated after each epoch.

Each side is a command that trains for some epochs, started by a user who has started it before: what it keeps from one
time to the next is there. Three epochs less one give the time of two, whatever starting up and compiling take.
"""

import dataclasses
import json
import os
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convjax.data import sources
from peers.cases import SYSTEMS
from peers.process import completed, environment

HERE = Path(__file__).parent
KINDS = ("convjax native", "convjax pure", "convjax off", "linen", "torch eager")
"""The systems that are timed."""
LONG, SHORT = 3, 1
IMAGES = 60_000


@dataclasses.dataclass(frozen=True)
class Epoch:
    """Attributes:
    system: what was timed.
    epoch_s: seconds of an epoch with its evaluation, for 60,000 images trained on: the median of rounds.
    low: the least of a round.
    high: the largest.
    start_s: what the command takes besides its epochs.
    date: day of the measurement.
    machine: where.
    """

    system: str
    epoch_s: float
    low: float
    high: float
    start_s: float
    date: str
    machine: str


def measure(
    names: Sequence[str], rounds: int, torch: str, date: str, machine: str, say: Callable[[str], None]
) -> list[Epoch]:
    """Times systems in turn.

    Raises:
        Failed: a command failed.
        UsageError: Fashion-MNIST is not prepared.
    """
    source = sources.load("fashion_mnist")
    directory = os.environ.get("TFDS_DATA_DIR", str(Path.home() / "tensorflow_datasets"))
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as place:
        _write_idx(Path(place), source)
        for name in names:  # so that what a command keeps for the next one is there in the first round, too
            _seconds(name, SHORT, place, directory, torch)
        for i in range(rounds):
            for name in names:
                short, long = (_seconds(name, n, place, directory, torch) for n in (SHORT, LONG))
                # convjax keeps a seventh of the images for its evaluation.
                whole = 7 / 6 if name.startswith("convjax") else 1
                epoch = (long - short) / (LONG - SHORT) * whole
                taken[name].append((epoch, short - SHORT * epoch / whole))
                say(f"round {i + 1} of {rounds}: {name}: {epoch:.2f} s an epoch")
    found = []
    for name, pairs in taken.items():
        epochs, starts = zip(*pairs, strict=True)
        median = statistics.median(epochs)
        found.append(Epoch(name, median, min(epochs), max(epochs), statistics.median(starts), date, machine))
    return found


def _seconds(name: str, epochs: int, place: str, data: str, torch: str) -> float:
    """Returns how long a system's command takes for some epochs."""
    system = SYSTEMS[name]
    with tempfile.TemporaryDirectory() as run:
        if system.side == "convjax_side":
            begin = [str(Path(sys.executable).parent / "convjax"), "train", str(HERE / "epoch_convjax.py")]
            command = [*begin, "--workdir", f"{run}/run", "--train.length", f"{epochs} epochs"]
        elif system.torch:
            command = [torch, "-m", "peers.epoch_torch", str(epochs), place]
        else:
            command = [sys.executable, "-m", "peers.epoch_linen", str(epochs), data]
        # convjax's command sets its memory itself, and starts once more to do so.
        alike = dataclasses.replace(system, memory=system.memory and system.side != "convjax_side")
        given = {**environment(alike), "TFDS_DATA_DIR": data, "CONVJAX_CPU_KERNELS": system.mode or "off"}
        began = time.perf_counter()
        completed(name, command, given)
        return time.perf_counter() - began


def _write_idx(root: Path, source: sources.Source) -> None:
    """Writes a data set as the files that torchvision reads."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, split in (("train", source.train), ("t10k", source.test)):
        images: NDArray[np.uint8] = np.asarray(split.images[:])[..., 0]
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, *images.shape) + images.tobytes())
        labels = np.asarray(split.labels, np.uint8)
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, len(labels)) + labels.tobytes())


def read(path: Path) -> list[Epoch]:
    """Returns the results in a file; none where there is no file."""
    return [Epoch(**fields) for fields in json.loads(path.read_text())] if path.exists() else []
