"""A manifest: a CSV file or JSON lines that name image files with their labels."""

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from convjax.data.files import SPLITS, Files, Found, identity, is_image, ordered, unknown_suffix
from convjax.errors import UsageError

SUFFIXES = (".csv", ".jsonl")
_NEEDED = ("path", "label")


class _Row(NamedTuple):
    """Attributes:
    path: as it stands there.
    label: its class.
    split: train, validation or test.
    """

    path: str
    label: str
    split: str


def find(file: Path) -> Found:
    """Reads a manifest: columns (or keys) path, label and, if wanted, split; other ones are left alone.

    Paths start where the manifest lies. Classes are numbered in the order of their labels: as numbers where all are.

    Raises:
        UsageError: a column, a label or a file is missing, or a split is unknown.
    """
    read = _json_rows if file.suffix == ".jsonl" else _csv_rows
    rows = [_row(file, line, fields) for line, fields in read(file)]
    if not rows:
        raise UsageError(f"{file} names no images")
    if not any(row.split == "train" for row in rows):
        raise UsageError(f"{file} has no row whose split is train")
    root = file.resolve().parent
    class_names = ordered({row.label for row in rows if row.split == "train"})
    numbers = {name: number for number, name in enumerate(class_names)}
    for row in rows:
        if row.label not in numbers:
            raise UsageError(f"{file}: {row.path} has the label {row.label!r}, which no image of the train split has")
    splits = {}
    for split in dict.fromkeys(row.split for row in rows):
        own = [row for row in rows if row.split == split]
        splits[split] = Files(root, [row.path for row in own], np.array([numbers[row.label] for row in own], np.int32))
    told = identity((*row, *_told(file, root / row.path)) for row in rows)
    return Found("manifest", tuple(class_names), splits, f"{file.resolve()} {told}")


def _told(file: Path, image: Path) -> tuple[int, int]:
    try:
        told = image.stat()
    except OSError as error:
        raise UsageError(f"{file} names {image}, which cannot be read: {error.strerror}") from error
    return told.st_size, told.st_mtime_ns


def _row(file: Path, line: int, fields: dict[str, object]) -> _Row:
    for name in _NEEDED:
        if fields.get(name) in (None, ""):
            there = ", ".join(map(str, fields)) or "nothing"
            raise UsageError(f"{file}, line {line}: {name} is missing (there: {there}); path and label are needed")
    path, label = str(fields["path"]), str(fields["label"])
    split = str(fields.get("split") or "train")
    if split.lower() not in SPLITS:
        raise UsageError(f"{file}, line {line}: split is {split!r}: it must be train, val or test")
    if not is_image(path):
        raise unknown_suffix(f"{file}, line {line}: {path}")
    return _Row(path, label, SPLITS[split.lower()])


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, object]]]:
    with _text(file) as lines:
        rows = csv.DictReader(lines)
        missing = [name for name in _NEEDED if name not in (rows.fieldnames or ())]
        if missing:
            raise UsageError(
                f"{file} has no column {missing[0]}: its first line is {','.join(rows.fieldnames or ())!r}, "
                "it must name the columns, as 'path,label' or 'path,label,split'"
            )
        for fields in rows:
            yield rows.line_num, {name: value for name, value in fields.items() if name is not None}


def _json_rows(file: Path) -> Iterator[tuple[int, dict[str, object]]]:
    with _text(file) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except ValueError as error:
                raise UsageError(f"{file}, line {number}: no JSON: {error}") from error
            if not isinstance(fields, dict):
                raise UsageError(f'{file}, line {number}: it must be an object, as {{"path": ..., "label": ...}}')
            yield number, fields


@contextlib.contextmanager
def _text(file: Path) -> Iterator[TextIO]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            yield lines
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
