"""What one look at all examples of a split finds, and where it is kept for sets that stay on disk."""

import contextlib
import dataclasses
import fcntl
import logging
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convjax.data.records import Piece, Records
from convjax.digest import array_bytes, digest, running
from convjax.files import user_cache

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Survey:
    """Attributes:
    shape: `(N, H, W, C)`.
    labels: int32 `[N]`.
    counts: int64 `[C, 256]`, how often each channel has each value.
    fingerprint: digest of the shape, of the pixels and of the labels.
    """

    shape: tuple[int, ...]
    labels: NDArray[np.int32]
    counts: NDArray[np.int64]
    fingerprint: str


def survey(pieces: Iterable[Piece], image: tuple[int, ...]) -> Survey:
    """Looks at all examples once.

    Args:
        pieces: images and labels, in order; how they are cut into pieces does not matter.
        image: (height, width, channels).
    """
    pixels, numbers = running(), running()
    counts = np.zeros((image[-1], 256), np.int64)
    found = [np.zeros(0, np.int32)]
    for images, labels in pieces:
        pixels.update(array_bytes(images))
        numbers.update(array_bytes(labels))
        counts += value_counts(images)
        found.append(labels)
    every = np.concatenate(found)
    shape = (len(every), *image)
    return Survey(shape, every, counts, digest(f"{shape} {pixels.hexdigest()} {numbers.hexdigest()}".encode()))


def value_counts(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Returns how often each channel of `[N, H, W, C]` images has each of the 256 values: `[C, 256]`."""
    return np.stack([_counts(images[..., i].ravel()) for i in range(images.shape[-1])])


def _counts(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    # Two at a time: NumPy counts in int64, and widening each value alone takes longer than to count it.
    even = len(values) // 2 * 2
    pairs = np.bincount(values[:even].view(np.uint16), minlength=256 * 256).reshape(256, 256)
    return pairs.sum(axis=0) + pairs.sum(axis=1) + np.bincount(values[even:], minlength=256)


def survey_records(name: str, splits: Mapping[str, Records]) -> dict[str, Survey]:
    """Reads all records of some splits once, and shows how far it is; see `survey`.

    Raises:
        UsageError: they cannot be read; see `Records.pieces`.
    """
    from rich.console import Console
    from rich.progress import Progress

    total = sum(map(len, splits.values()))
    told = f"reading all {total:,} images of {name} once"
    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"{told}, for their statistics and fingerprint", file=sys.stderr)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(told, total=total)

        def counted(records: Records) -> Iterable[Piece]:
            for images, labels in records.pieces():
                yield images, labels
                progress.advance(task, len(labels))

        image = splits["train"].shape[1:]
        return {split: survey(counted(records), image) for split, records in splits.items()}


def remembered(key: str, look: Callable[[], dict[str, Survey]]) -> dict[str, Survey]:
    """Returns what was found of some data, by an earlier process or now.

    Of several processes on one machine the first one looks, and the others wait for it.

    Args:
        key: stands for the data: another one where they might be others.
        look: finds it.
    """
    file = user_cache("surveys") / f"{digest(key.encode())}.npz"
    with contextlib.ExitStack() as held:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(file.with_suffix(".lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("another process reads these data through; waiting for it", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            _logger.warning("%s cannot be written (%s): the data will be read through again", file, error.strerror)
            return look()
        known = _read(file)
        if known is None:
            known = look()
            _write(file, known)
        return known


def _read(file: Path) -> dict[str, Survey] | None:
    """Returns what `_write` wrote; None where that is missing or damaged."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return {
                str(split): Survey(
                    shape=tuple(map(int, arrays[f"{split}/shape"])),
                    labels=arrays[f"{split}/labels"],
                    counts=arrays[f"{split}/counts"],
                    fingerprint=str(arrays[f"{split}/fingerprint"]),
                )
                for split in arrays["splits"]
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(file: Path, known: Mapping[str, Survey]) -> None:
    arrays = {f"{split}/{name}": value for split, found in known.items() for name, value in vars(found).items()}
    temporary = file.with_suffix(".tmp")
    try:
        with temporary.open("wb") as opened:
            np.savez(opened, allow_pickle=False, splits=np.array(list(known)), **arrays)
        temporary.replace(file)
    except OSError as error:
        _logger.warning("%s cannot be written (%s): the data will be read through again", file, error.strerror)
