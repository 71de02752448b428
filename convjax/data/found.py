"""What was found out about data that stay on disk, kept for the next time."""

import contextlib
import fcntl
import logging
import sys
from collections.abc import Callable

from convjax.data import arrays
from convjax.data.arrays import Arrays
from convjax.digest import digest
from convjax.files import user_cache

_logger = logging.getLogger(__name__)
_UNWRITTEN = "%s cannot be written (%s): the data will be read through again"


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
            _logger.warning(_UNWRITTEN, file, error.strerror)
            return look()
        known = arrays.read(file)
        if known is None:
            known = look()
            try:
                arrays.write(file, known)
            except OSError as error:
                _logger.warning(_UNWRITTEN, file, error.strerror)
        return known
