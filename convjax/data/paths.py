"""Data sets that a path names: a folder of images, a manifest, or tar shards."""

from pathlib import Path

from convjax.data import folder, manifest, shards
from convjax.data.files import Found
from convjax.data.images import Crop
from convjax.data.jpeg import Size
from convjax.data.opened import Opened
from convjax.data.records import Records, View
from convjax.errors import UsageError

_STARTS = ("/", "./", "../", "~")
_FILES = (*manifest.SUFFIXES, shards.SUFFIX)


def is_path(name: str) -> bool:
    """Says whether a data set's name is a path: by how it begins or ends, whatever there is."""
    return name.startswith(_STARTS) or name in (".", "..") or name.endswith(_FILES)


def find(name: str, directory: str | None) -> Path:
    """Returns where a path leads.

    Raises:
        UsageError: there is nothing, or a file that is neither manifest nor shard.
    """
    path = Path(directory or ".").expanduser() / Path(name).expanduser()
    if not path.exists():
        raise UsageError(f"data.name is {name!r}: there is no {path}")
    if path.is_file() and path.suffix not in _FILES:
        raise UsageError(f"data.name is {name!r}: it must be a folder, or a file that ends in {', '.join(_FILES)}")
    return path


def open_records(name: str, *, directory: str | None, size: Size | None, crop: Crop) -> Opened:
    """Opens the images that a path names, without reading any; see `convjax.data.sources.open_records`."""
    path = find(name, directory)
    try:
        found = _found(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    seen = View(size, 3, crop)
    splits = {split: Records(str(path), source, seen) for split, source in found.splits.items()}
    return Opened.of(name, found.kind, found.class_names, splits, f"{found.kind} {found.identity}")


def _found(path: Path) -> Found:
    if path.suffix in manifest.SUFFIXES:
        return manifest.find(path)
    if path.suffix == shards.SUFFIX or shards.listed(path):
        return shards.find(path)
    return folder.find(path)
