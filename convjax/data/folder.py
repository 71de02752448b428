"""A folder of images: one folder a class, with or without train, validation and test above them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convjax.data.files import SPLITS, Files, Found, identity, is_image, unknown_suffix
from convjax.errors import UsageError, nearest

_LAYOUT = "it must hold a folder a class with images in it, or such folders below train, val and test"


class _File(NamedTuple):
    """Attributes:
    name: below the folder of the data.
    label: name of its class.
    size: in bytes.
    time: of its last change, in nanoseconds.
    """

    name: str
    label: str
    size: int
    time: int


def find(root: Path) -> Found:
    """Lists a folder's images. Classes are numbered in the order of their names.

    Raises:
        UsageError: it is not laid out like that, a class has no images, or a file is none.
    """
    folders = _folders(root)
    splits = {SPLITS[name.lower()]: name for name in folders if name.lower() in SPLITS}
    if splits and len(splits) < len(folders):
        others = sorted(set(folders) - set(splits.values()))
        raise UsageError(
            f"{root} holds {', '.join(sorted(splits.values()))} beside {others[0]}: below a folder there must be "
            "splits or classes, not both (a name that names two splits, as val and valid, counts once)"
        )
    if splits and "train" not in splits:
        raise UsageError(f"{root} holds {', '.join(sorted(splits.values()))} and no folder train")
    class_names = _folders(root / splits["train"]) if splits else folders
    if not class_names:
        raise UsageError(f"{root / splits['train'] if splits else root} holds no folders: {_LAYOUT}")
    listed = {split: list(_files(root, folder, class_names)) for split, folder in (splits or {"train": ""}).items()}
    for label in sorted(set(class_names) - {file.label for file in listed["train"]}):
        raise UsageError(f"{root / splits.get('train', '') / label} holds no images: fill the class or delete it")
    numbers = {name: number for number, name in enumerate(class_names)}
    return Found(
        "folder",
        tuple(class_names),
        {
            split: Files(root, [f.name for f in files], np.array([numbers[f.label] for f in files], np.int32))
            for split, files in listed.items()
        },
        f"{root.resolve()} {identity((split, *f) for split, files in listed.items() for f in files)}",
    )


def _folders(path: Path) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _files(root: Path, split: str, class_names: list[str]) -> Iterator[_File]:
    """Yields the images of a split, class by class, in the order of their names."""
    with os.scandir(root / split) as entries:
        for entry in entries:
            if entry.is_file() and not entry.name.startswith("."):
                raise UsageError(f"{root / split} holds the file {entry.name} beside folders: {_LAYOUT}")
    for label in _folders(root / split):
        if label not in class_names:
            raise UsageError(
                f"{root / split / label} is a class that the train split has not: {nearest(label, class_names)}"
            )
        yield from sorted(_below(root, f"{split}/{label}" if split else label, label))


def _below(root: Path, folder: str, label: str) -> Iterator[_File]:
    with os.scandir(root / folder) as entries:
        for entry in entries:
            name = f"{folder}/{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _below(root, name, label)
            elif is_image(entry.name):
                told = entry.stat()
                yield _File(name, label, told.st_size, told.st_mtime_ns)
            else:
                raise unknown_suffix(root / name)
