"""Whether the other processes of a run still live: without them every collective operation waits forever."""

import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

import jax

from convjax.train import processes
from convjax.train.interrupts import Interrupted

BEAT = 1.0
"""Seconds between two signs of life."""
SILENCE = 20.0
"""Seconds without one after which a process counts as dead."""
GOES_ON = "the same commands go on from the last checkpoint, also with other numbers of processes and devices"


class Peers:
    """Ends this process when another one of its run has died; a context manager, idle where there is no other.

    Each process touches a file in the run's directory, which they share for the sake of checkpoints, and watches
    the others'. A thread does that, since the main thread may hang in a collective operation that nothing ends;
    for the same reason it ends the process itself, with exit code 1.
    """

    def __init__(self, directory: Path, *, index: int, count: int) -> None:
        self._files = [directory / "processes" / str(i) for i in range(count)]
        self._own = self._files[index]
        self._ended = threading.Event()

    def __enter__(self) -> "Peers":
        if len(self._files) > 1:
            self._own.parent.mkdir(parents=True, exist_ok=True)
            self._own.write_text("")
            processes.barrier()  # from here on each file is of this start, not of one before
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if len(self._files) == 1:
            return
        self._ended.set()
        self._watcher.join()
        if kind is not None and not issubclass(kind, Interrupted):
            return  # the others will find this one silent
        if self._own == self._files[0]:
            # JAX aborts whoever is still there when the first process, which holds them together, has gone.
            deadline = time.monotonic() + SILENCE
            while any(_beat(file) for file in self._files[1:]) and time.monotonic() < deadline:
                time.sleep(0.05)
        jax.distributed.shutdown()
        self._own.write_text("done")

    def _watch(self) -> None:
        now = time.monotonic()
        seen = {file: (0, now) for file in self._files if file != self._own}
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self._own)
            for file, (last, since) in seen.items():
                beat = _beat(file)
                if beat != last:
                    seen[file] = beat, time.monotonic()
                elif beat and time.monotonic() - since > SILENCE:
                    self._give_up(file.name)

    def _give_up(self, process: str) -> None:
        sys.stdout.flush()
        line = (
            f"convjax: failed: process {process} of the run has given no sign of life for {SILENCE:.0f} s; {GOES_ON}\n"
        )
        os.write(2, line.encode())
        os._exit(1)


def _beat(file: Path) -> int:
    """Returns when a process last gave a sign of life; 0 where it has ended as it should."""
    try:
        return 0 if file.read_text() else file.stat().st_mtime_ns
    except OSError:
        return 0
