"""Decoded images of sets that are read whole, kept from one process to the next: decoding takes longest of all."""

import contextlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convjax.data.records import Piece
from convjax.digest import digest
from convjax.files import keep_within, user_cache, written_apart

LARGEST = 1_000_000_000
"""Bytes that all sets may have together; a larger one is decoded again by each process."""


def kept(key: str, decode: Callable[[], dict[str, Piece]]) -> dict[str, Piece]:
    """Returns images and labels by split, as an earlier process decoded them or this one does now.

    What cannot be kept, or has been damaged since (each array has a checksum), is decoded again.

    Args:
        key: stands for the files and for how they are decoded: another one where pixels might be others.
        decode: does it.
    """
    file = user_cache("pixels") / f"{digest(key.encode())}.npz"
    known = _read(file)
    if known is None:
        known = decode()
        _write(file, known)
    return known


def _read(file: Path) -> dict[str, Piece] | None:
    """Returns what `_write` wrote; None where that is missing or damaged."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            known = {
                str(split): Piece(
                    images=arrays[f"{split}/images"],
                    labels=arrays[f"{split}/labels"],
                    rows=arrays[f"{split}/rows"],
                    broken=tuple(map(str, arrays[f"{split}/broken"])),
                )
                for split in arrays["splits"]
            }
        os.utime(file)  # the time of its last use
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return known


def _write(file: Path, known: dict[str, Piece]) -> None:
    arrays: dict[str, NDArray[Any]] = {}
    for split, piece in known.items():
        arrays |= {f"{split}/{name}": np.asarray(value) for name, value in piece._asdict().items()}
        arrays[f"{split}/broken"] = np.array(piece.broken, np.str_)
    if sum(array.nbytes for array in arrays.values()) > LARGEST:
        return
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_apart(file) as opened:
            np.savez(opened, allow_pickle=False, splits=np.array(list(known)), **arrays)
        keep_within(file.parent.iterdir(), LARGEST)
