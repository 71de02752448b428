"""One writer a run: a lock on its directory."""

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from convjax.errors import UsageError

BEAT = 5.0
"""Seconds between two signs of life of whoever holds a lock."""
SILENCE = 30.0
"""Seconds without one after which a holder on another machine counts as dead."""

_logger = logging.getLogger(__name__)


class Lock:
    """The right to write into a run's directory; a context manager.

    The file `lock` there tells host and process of whoever holds it. The kernel's own lock on the file decides,
    which ends with the process however it ends. Some network file systems keep such locks to one machine; so a
    holder also touches the file now and then, and one on another machine that has stopped to do so is taken
    for dead.
    """

    def __init__(self, directory: Path, *, beat: float = BEAT, silence: float = SILENCE) -> None:
        self._path, self._beat, self._silence = directory / "lock", beat, silence
        self._released = threading.Event()

    def __enter__(self) -> "Lock":
        """Takes the lock.

        Raises:
            UsageError: another process holds it.
        """
        self._file = self._path.open("a+")
        try:
            self._take()
        except BaseException:
            self._file.close()
            raise
        self._heart = threading.Thread(target=self._live, daemon=True)
        self._heart.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._released.set()
        self._heart.join()
        self._file.truncate(0)  # not removed: a process that has just opened it would then lock what is no file
        self._file.close()

    def check(self) -> None:
        """Makes sure, as far as can be told at once, that nobody else holds the lock; changes nothing.

        Raises:
            UsageError: another process holds it.
        """
        if self._path.is_file():
            with self._path.open() as file:
                self._try(file)

    def _take(self) -> None:
        self._try(self._file)
        holder = _holder(self._file)
        if holder is not None and holder[0] != socket.gethostname():
            self._outwait(*holder)
        self._file.truncate(0)
        self._file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid()}) + "\n")
        self._file.flush()

    def _try(self, file: IO[str]) -> None:
        try:
            # On a file opened to be read only a shared lock is sure to be granted.
            kind = fcntl.LOCK_EX if file.writable() else fcntl.LOCK_SH
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._refused(_holder(file)) from error

    def _outwait(self, host: str, process: int) -> None:
        """Waits until a holder on another machine has been silent for long enough."""
        _logger.warning(
            "%s was last written by process %d on host %s; waiting %g s for a sign of life",
            self._path.parent,
            process,
            host,
            self._silence,
        )
        last, since = self._path.stat().st_mtime_ns, time.monotonic()
        while time.monotonic() - since < self._silence:
            time.sleep(min(self._beat, self._silence) / 10)
            if self._path.stat().st_mtime_ns != last:
                raise self._refused((host, process))

    def _refused(self, holder: tuple[str, int] | None) -> UsageError:
        who = "another process" if holder is None else f"process {holder[1]} on host {holder[0]}"
        return UsageError(f"{self._path.parent} is being written by {who}: wait for it, or take another --workdir")

    def _live(self) -> None:
        while not self._released.wait(self._beat):
            with contextlib.suppress(OSError):  # a full or absent disk is told by whoever writes what matters
                os.utime(self._path)


def held(directory: Path) -> bool:
    """Says whether a process seems to write a run, without taking its lock for a moment, as `Lock.check` does.

    Whoever has given no sign of life for long counts as dead, and on this machine whoever is.
    """
    path = directory / "lock"
    try:
        with path.open() as file:
            holder = _holder(file)
        if holder is None or time.time() - path.stat().st_mtime > SILENCE:
            return False
        host, process = holder
        if host == socket.gethostname():
            os.kill(process, 0)
    except PermissionError:
        return True  # it lives, and is another user's
    except OSError:
        return False
    return True


def _holder(file: IO[str]) -> tuple[str, int] | None:
    """Returns host and process id of who holds, or last held, the lock."""
    file.seek(0)
    try:
        content = json.loads(file.read())
        return str(content["host"]), int(content["process"])
    except (ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Makes a directory, and keeps other processes from writing into it.

    Raises:
        UsageError: the directory cannot be written, or another process writes it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = Lock(directory)
        lock.__enter__()
    except OSError as error:
        raise UsageError(f"{directory} cannot be written ({error.strerror}): take another --workdir") from error
    with contextlib.ExitStack() as stack:
        stack.push(lock)
        yield
