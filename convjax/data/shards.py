"""WebDataset's tar shards, read by the offsets of their members, in any order."""

import json
import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convjax.data import found as places
from convjax.data.files import SPLITS, Found, is_image, ordered
from convjax.data.records import Encoded
from convjax.errors import UsageError

SUFFIX = ".tar"
_LABELS = (".cls", ".json")


class _Index(NamedTuple):
    """Where the images of a shard lie.

    Attributes:
        names: of the members.
        offsets: int64, bytes before their content.
        sizes: int64, bytes of it.
        labels: as the shard has them.
    """

    names: NDArray[np.str_]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.str_]


class Members:
    """Images in tar files, one an example."""

    def __init__(self, files: Sequence[Path], indices: Sequence[_Index], numbers: dict[str, int]) -> None:
        self._files, self._indices = files, indices
        self._labels = [np.array([numbers[label] for label in index.labels.tolist()], np.int32) for index in indices]
        self._ends = np.cumsum([len(index.names) for index in indices])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitems__(self, numbers: Sequence[int]) -> list[Encoded]:
        return [self._get(number) for number in numbers]

    def _get(self, number: int) -> Encoded:
        shard = int(np.searchsorted(self._ends, number, side="right"))
        index, file = self._indices[shard], self._files[shard]
        row = number - int(self._ends[shard]) + len(index.names)
        # Opened for each: a data set may have more shards than a process may hold open.
        descriptor = os.open(file, os.O_RDONLY)
        try:
            content = os.pread(descriptor, int(index.sizes[row]), int(index.offsets[row]))
        finally:
            os.close(descriptor)
        return Encoded(f"{file}: {index.names[row]}", content, int(self._labels[shard][row]))


def find(path: Path) -> Found:
    """Reads the members' places in one shard or in all of a folder, once; they are kept for the next time.

    The splits of a folder's shards are told by the folders that they lie in, train, val, test, or by a word of
    these in their names; without any, all are the train split.

    An image's label is what its neighbour of the same name says, .cls the number or name of the class, .json an
    object with the key label; or else the folder in which it lies in the shard.

    Raises:
        UsageError: there are no shards, one is truncated, or an image has no label.
    """
    files = listed(path)
    stats = [file.stat() for file in files]
    identities = [f"{f.resolve()} {s.st_size} {s.st_mtime_ns}" for f, s in zip(files, stats, strict=True)]
    indices = [_remembered(file, told) for file, told in zip(files, identities, strict=True)]
    root = path if path.is_dir() else path.parent
    by_split: dict[str, list[int]] = {}
    for number, file in enumerate(files):
        by_split.setdefault(_split(file.relative_to(root)), []).append(number)
    if "train" not in by_split:
        raise UsageError(f"{path} holds shards of {', '.join(by_split)} and none of train")
    train = {label for number in by_split["train"] for label in np.unique(indices[number].labels).tolist()}
    class_names = ordered(train)
    numbers = {name: number for number, name in enumerate(class_names)}
    for number, index in enumerate(indices):
        for label in sorted(set(np.unique(index.labels).tolist()) - train):
            raise UsageError(f"{files[number]}: the label {label!r} is none of the train split's")
    splits = {
        split: Members([files[i] for i in own], [indices[i] for i in own], numbers) for split, own in by_split.items()
    }
    return Found("shards", tuple(class_names), splits, " ".join(identities))


def listed(path: Path) -> list[Path]:
    """Returns a shard, or those of a folder and of the folders in it, in the order of their names."""
    return [path] if path.is_file() else sorted([*path.glob(f"*{SUFFIX}"), *path.glob(f"*/*{SUFFIX}")])


def _split(file: Path) -> str:
    words = re.split(r"[^a-z]+", file.as_posix().lower())
    return next((SPLITS[word] for word in words if word in SPLITS), "train")


def _remembered(file: Path, identity: str) -> _Index:
    found = places.remembered(f"shard {identity}", lambda: _index(file)._asdict())
    return _Index(**found)


def _index(file: Path) -> _Index:
    """Goes through the headers of a shard."""
    images: list[tuple[str, int, int]] = []
    labels: dict[str, str] = {}
    size = file.stat().st_size
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                if not member.isfile() or Path(member.name).name.startswith("."):
                    continue
                if member.offset_data + member.size > size:
                    raise UsageError(f"{file} is truncated: it ends within {member.name}; copy it again")
                key, suffix = _parts(member.name)
                if is_image(member.name):
                    images.append((member.name, member.offset_data, member.size))
                elif suffix in _LABELS:
                    content = tar.extractfile(member)
                    assert content is not None, "it is a file"
                    labels[key] = _label(file, member.name, suffix, content.read())
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UsageError(f"{file} is no tar file, or damaged ({error}): shards must not be compressed") from error
    with file.open("rb") as opened:
        opened.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
        if opened.read().strip(tarfile.NUL):  # cut off between two members, which tarfile takes for the end
            raise UsageError(f"{file} is truncated: it lacks the empty block that a tar file ends with; copy it again")
    if not images:
        raise UsageError(f"{file} holds no images (.jpg, .png, .webp, ...)")
    names, offsets, sizes = zip(*images, strict=True)
    own = [labels.get(_parts(name)[0]) or _folder(file, name) for name in names]
    return _Index(np.array(names), np.array(offsets, np.int64), np.array(sizes, np.int64), np.array(own))


def _parts(name: str) -> tuple[str, str]:
    """Returns what the files of one example have in common, and the suffix: both end at the first dot of the name."""
    folder, _, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return f"{folder}/{stem}", dot + suffix.lower()


def _folder(file: Path, name: str) -> str:
    folder = Path(name).parent.name
    if not folder:
        key = _parts(name)[0].lstrip("/")
        raise UsageError(f"{file}: {name} has no label: there must be {key}.cls, {key}.json, or a folder a class")
    return folder


def _label(file: Path, name: str, suffix: str, content: bytes) -> str:
    try:
        text = content.decode().strip()
        label = str(json.loads(text)["label"]) if suffix == ".json" else text
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: {name} holds no label ({type(error).__name__}: {error})") from error
    if not label:
        raise UsageError(f"{file}: {name} is empty: it must hold the number or the name of a class")
    return label
