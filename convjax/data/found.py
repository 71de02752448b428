"""What was found out about data that stay on disk, kept for the next time."""

import contextlib
import fcntl
import logging
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convjax.digest import digest
from convjax.files import user_cache

Arrays: TypeAlias = dict[str, NDArray[Any]]

_logger = logging.getLogger(__name__)


def remembered(key: str, look: Callable[[], Arrays]) -> Arrays:
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


def _read(file: Path) -> Arrays | None:
    """Returns what `_write` wrote; None where that is missing or damaged."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(file: Path, known: Arrays) -> None:
    temporary = file.with_suffix(".tmp")
    try:
        with temporary.open("wb") as opened:
            np.savez(opened, allow_pickle=False, **known)
        temporary.replace(file)
    except OSError as error:
        _logger.warning("%s cannot be written (%s): the data will be read through again", file, error.strerror)
