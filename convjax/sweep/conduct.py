"""A sweep at work: its directory, and its runs from the first to the last."""

import contextlib
import queue
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from convjax.errors import RunError, UsageError
from convjax.sweep import record, study
from convjax.sweep.job import Job
from convjax.sweep.launch import Launcher
from convjax.sweep.live import View
from convjax.sweep.record import Arm, Sweep
from convjax.sweep.trials import describe
from convjax.train import lock
from convjax.train.interrupts import SIGNALS

_FIRST_FILES = {"lock", record.COPY, f".{record.FILE}.tmp", study.FILE, study.PLACE}
"""What stands in a directory whose sweep was killed before it had written its record."""
_LINES = 5


class Stopped(Exception):
    """A signal stopped a sweep; it goes on when it is started again.

    Attributes:
        signal: which.
    """

    def __init__(self, received: signal.Signals, advice: str | None) -> None:
        super().__init__(advice or f"stopped by {received.name}; what its runs had done is saved")
        self.signal = received


def check(path: Path) -> None:
    """Makes sure, without writing anything, that a sweep can live in a directory.

    Raises:
        UsageError: it holds something else, or another process writes it.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file: take another --workdir")
    if path.is_dir() and not (path / record.FILE).is_file() and {p.name for p in path.iterdir()} - _FIRST_FILES:
        raise UsageError(f"{path} is not empty and holds no sweep (no {record.FILE}): take another --workdir")
    lock.Lock(path).check()


@contextlib.contextmanager
def writing(sweep: Sweep, experiment: bytes) -> Iterator[None]:
    """Makes a sweep's directory, and keeps other sweeps out of it.

    Args:
        sweep: what to write.
        experiment: content of the experiment file.

    Raises:
        UsageError: the directory cannot be written, or another process writes it.
    """
    with lock.writing(sweep.path):
        (sweep.path / record.COPY).write_bytes(experiment)
        sweep.write()
        for name in ("runs", "logs"):
            (sweep.path / name).mkdir(exist_ok=True)
        yield


def conduct(jobs: Sequence[Job], launcher: Launcher, view: View) -> None:
    """Runs jobs to their ends.

    Raises:
        RunError: a run cannot be started.
        Stopped: a signal came, and all that ran has ended.
    """
    stopped: signal.Signals | None = None
    with signals() as received:
        try:
            launcher.submit(jobs)
            while not (standing := launcher.poll()).over:
                view.show(standing)
                with contextlib.suppress(queue.Empty):
                    got = received.get(timeout=launcher.interval)
                    if (advice := launcher.advice()) is not None:
                        raise Stopped(got, advice)
                    view.say(f"{got.name}: {passed_on(len(standing.running), again=stopped is not None)}")
                    stopped = got
                    launcher.stop(got)
        except (OSError, RunError):
            launcher.stop(signal.SIGTERM)
            raise
        view.show(standing)
    if stopped is not None:
        raise Stopped(stopped, None)


def require_finished(arms: Sequence[Arm]) -> None:
    """Makes sure that all runs are finished.

    Raises:
        RunError: some are not; the message lists them with the last lines of their output.
    """
    left = [arm for arm in arms if arm.state != "finished"]
    if not left:
        return
    parts = [f"{len(left)} of {len(arms)} runs are not finished; the same command takes them up again"]
    for arm in left:
        code = arm.exit_code()
        how = f"failed, exit code {code}" if arm.state == "failed" else "stopped" if arm.log.is_file() else "not begun"
        parts.append(f"{arm.name}  {describe(arm.settings)}: {how}")
        if arm.log.is_file():
            parts += [f"  {arm.log} ends with", *(f"    {line}" for line in arm.last_lines(_LINES))]
    raise RunError("\n".join(parts))


def strangers(sweep: Sweep) -> list[str]:
    """Returns the names of runs that stand in a sweep's directory and are not part of it, from earlier settings."""
    own = {arm.name for arm in sweep.runs}
    return sorted(path.name for path in (sweep.path / "runs").glob("*") if path.name not in own)


def passed_on(running: int, *, again: bool) -> str:
    """Says what a signal does to so many runs."""
    runs = "1 run" if running == 1 else f"{running} runs"
    if again:
        return f"stopping {runs} at once"
    return f"stopping {runs} after a checkpoint; once more stops at once"


@contextlib.contextmanager
def signals() -> Iterator["queue.SimpleQueue[signal.Signals]"]:
    """Collects signals, instead of being ended by them."""
    received: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()

    def handle(number: int, frame: FrameType | None) -> None:
        received.put(signal.Signals(number))

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
