"""Decoded images of sets that are read whole, kept from one process to the next: decoding takes longest of all."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from convjax.data import arrays
from convjax.data.records import Piece
from convjax.digest import digest
from convjax.files import keep_within, user_cache

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
    known = arrays.read(file)
    if known is None:
        pieces = decode()
        _write(file, arrays.joined({split: piece._asdict() for split, piece in pieces.items()}))
        return pieces
    with contextlib.suppress(OSError):
        os.utime(file)  # the time of its last use
    return {
        split: Piece(fields["images"], fields["labels"], fields["rows"], tuple(map(str, fields["broken"])))
        for split, fields in arrays.parted(known).items()
    }


def _write(file: Path, known: arrays.Arrays) -> None:
    if sum(array.nbytes for array in known.values()) > LARGEST:
        return
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays.write(file, known)
        keep_within(file.parent.iterdir(), LARGEST)
