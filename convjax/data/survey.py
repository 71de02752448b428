"""What one look at all examples of a split finds, and where it is kept for sets that stay on disk."""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from convjax.data import arrays
from convjax.data import found as places
from convjax.data.records import Piece, Records
from convjax.digest import array_bytes, digest, running


@dataclasses.dataclass(frozen=True)
class Survey:
    """Attributes:
    shape: `(N, H, W, C)`.
    labels: int32 `[N]`.
    counts: int64 `[C, 256]`, how often each channel has each value.
    fingerprint: digest of the shape, of the pixels and of the labels.
    rows: int64 `[N]`, which of the records these are: all but the broken ones.
    broken: why each of the others is.
    """

    shape: tuple[int, ...]
    labels: NDArray[np.int32]
    counts: NDArray[np.int64]
    fingerprint: str
    rows: NDArray[np.int64]
    broken: tuple[str, ...]


def survey(pieces: Iterable[Piece], image: tuple[int, ...]) -> Survey:
    """Looks at all examples once.

    Args:
        pieces: images and labels, in order; how they are cut into pieces does not matter.
        image: (height, width, channels).
    """
    pixels, numbers = running(), running()
    counts = np.zeros((image[-1], 256), np.int64)
    found = [np.zeros(0, np.int32)]
    rows = [np.zeros(0, np.int64)]
    broken: list[str] = []
    for piece in pieces:
        pixels.update(array_bytes(piece.images))
        numbers.update(array_bytes(piece.labels))
        counts += value_counts(piece.images)
        found.append(piece.labels)
        rows.append(piece.rows)
        broken += piece.broken
    every = np.concatenate(found)
    shape = (len(every), *image)
    fingerprint = digest(f"{shape} {pixels.hexdigest()} {numbers.hexdigest()}".encode())
    return Survey(shape, every, counts, fingerprint, np.concatenate(rows), tuple(broken))


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
            for piece in records.pieces():
                yield piece
                progress.advance(task, len(piece.rows) + len(piece.broken))

        image = splits["train"].shape[1:]
        return {split: survey(counted(records), image) for split, records in splits.items()}


def remembered(key: str, look: Callable[[], dict[str, Survey]]) -> dict[str, Survey]:
    """Returns what was found of some splits, by an earlier process or now; see `convjax.data.found`."""
    found = places.remembered(key, lambda: arrays.joined({split: vars(known) for split, known in look().items()}))
    return {
        split: Survey(
            shape=tuple(map(int, fields["shape"])),
            labels=fields["labels"],
            counts=fields["counts"],
            fingerprint=str(fields["fingerprint"]),
            rows=fields["rows"],
            broken=tuple(map(str, fields["broken"])),
        )
        for split, fields in arrays.parted(found).items()
    }
