"""SIGTERM, SIGINT and SIGUSR1, which SLURM sends before it preempts: leave, but not without a checkpoint."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Interrupted(Exception):
    """A run was stopped by a signal after all that it had done was saved.

    Attributes:
        signal: which.
        step: the step of the checkpoint to go on from.
    """

    def __init__(self, received: signal.Signals, step: int) -> None:
        super().__init__(f"stopped by {received.name} after step {step}, which is saved")
        self.signal, self.step = received, step

    @property
    def exit_code(self) -> int:
        return exit_code(self.signal)


class Interrupts:
    """Notes signals while a run is at work; a context manager, to be entered in the main thread.

    While nothing would be lost, a signal ends the process at once; inside of `holding`, the first one is only
    noted, for the loop to stop and save, and the second ends the process. One that is never entered notes
    nothing.

    Python runs signal handlers between two of its own instructions, so not before XLA has ended a compilation
    of minutes. What acts here is therefore a thread that reads the signal's number from a pipe, into which
    Python's C handler writes it at once.
    """

    def __init__(self, advice: str = "the same command goes on from the last checkpoint") -> None:
        """Prepares for signals; `advice` says how to go on, to whoever stopped the run."""
        self._advice = advice
        self._received: signal.Signals | None = None
        self._holding = 0
        self._lock = threading.Lock()

    def __enter__(self) -> "Interrupts":
        def handled(number: int, frame: FrameType | None) -> None:
            """Keeps Python from doing what it would do by default."""

        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._previous_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, handled) for number in SIGNALS}
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        os.write(self._write, b"\0")  # no signal: tells the watcher to end
        self._watcher.join()
        os.close(self._read)
        os.close(self._write)

    @property
    def received(self) -> signal.Signals | None:
        """The signal that asked to stop, if one did."""
        return self._received

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """While work is done that a stop must save first; several runs may hold it at once."""
        with self._lock:
            self._holding += 1
        try:
            yield
        finally:
            with self._lock:
                self._holding -= 1

    def _watch(self) -> None:
        while number := os.read(self._read, 1)[0]:
            if number not in SIGNALS:
                continue
            received = signal.Signals(number)
            with self._lock:
                if self._holding and self._received is None:
                    self._received = received
                    _say(f"{received.name}: stopping after a checkpoint; once more stops at once")
                    continue
                lost = "what was done since the last checkpoint is lost" if self._holding else "nothing is lost"
                _say(f"stopped by {received.name} at once, {lost}; {self._advice}")
                os._exit(exit_code(received))


def exit_code(received: signal.Signals) -> int:
    """Returns what shells report for a process that a signal ended."""
    return 128 + received


def _say(line: str) -> None:
    """Writes a line past Python's buffers, whose locks the main thread may hold, and below a progress bar."""
    bar = b"\r\x1b[?25h\n" if sys.stderr.isatty() else b""
    os.write(2, bar + f"convjax: {line}\n".encode())
