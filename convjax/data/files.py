"""Image files and their labels: what a folder or a manifest lists."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convjax.data.records import Encoded, RandomAccess
from convjax.digest import running
from convjax.errors import UsageError

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
"""Of the files that are taken for images."""

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Splits by the names that folders, columns and shards give them."""


class Found(NamedTuple):
    """What a path holds.

    Attributes:
        kind: folder, manifest or shards.
        class_names: name of each class.
        splits: encoded images by split.
        identity: stands for the content of the files, as far as names, sizes and times tell.
    """

    kind: str
    class_names: tuple[str, ...]
    splits: Mapping[str, RandomAccess]
    identity: str


class Files:
    """Image files, one an example."""

    def __init__(self, root: Path, names: Sequence[str], labels: NDArray[np.int32]) -> None:
        self._root, self._names, self._labels = root, names, labels

    def __len__(self) -> int:
        return len(self._names)

    def __getitems__(self, numbers: Sequence[int]) -> list[Encoded]:
        return [
            Encoded(str(path := self._root / self._names[i]), path.read_bytes(), int(self._labels[i])) for i in numbers
        ]


def ordered(labels: Collection[str]) -> list[str]:
    """Returns labels in the order in which classes are numbered: by their number where all have one, else by name."""
    return sorted(labels, key=int) if all(label.isdecimal() for label in labels) else sorted(labels)


def is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122, a Path for each of a million is slow


def unknown_suffix(path: object) -> UsageError:
    """The error for a file that is not taken for an image."""
    known = ", ".join(sorted(SUFFIXES))
    return UsageError(f"{path} is no image file (known are {known}): convert it, or move it out of the data")


def identity(parts: Iterable[object]) -> str:
    """Returns what stands for some things, told by their representation, in their order."""
    found = running()
    for part in parts:
        found.update(f"{part!r}\n".encode())
    return found.hexdigest()
