"""What a run writes down of its course: metrics as JSON lines and TensorBoard events."""

import contextlib
import dataclasses
import io
import json
import math
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from convjax import digest
from convjax.errors import RunError

# tensorboardX imports PyTorch where it is installed, for two seconds and nothing that is used here.
_hidden = "torch" not in sys.modules
if _hidden:
    sys.modules["torch"] = None  # type: ignore[assignment]
try:
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.record_writer import RecordWriter
    from tensorboardX.summary import scalar
finally:
    if _hidden:
        del sys.modules["torch"]


RATE, WAITED = "train.images_per_second", "train.waited_for_data"
"""What is logged to TensorBoard alone, for it is of the clock: the latter is a share of the time since the start."""


class _Events:
    """A TensorBoard event file, without SummaryWriter's thread: on a full disk it dies, and then blocks its callers."""

    def __init__(self, directory: Path, step: int) -> None:
        """Begins a file that takes the place of what was written after `step`."""
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter(str(directory / name))
        self._flushed = time.monotonic()
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.SessionStatus.Value("START"))
        self._write(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def add(self, name: str, value: float, step: int) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())

    def flush(self, at_most_every: float = 0.0) -> None:
        """Brings to disk what was added; does nothing if that was done so many seconds ago or less."""
        if time.monotonic() - self._flushed >= at_most_every:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        self._writer.close()


@dataclasses.dataclass(frozen=True)
class Mark:
    """How far the metrics had been logged when a checkpoint was saved.

    Attributes:
        bytes: length of metrics.jsonl.
        digest: of that many bytes.
    """

    bytes: int
    digest: str


class MetricsLog:
    """Writes scalars to metrics.jsonl, one object a line, and to TensorBoard event files.

    A run that goes on from a checkpoint first takes back what was logged after it, so that no step stands
    there twice, and makes sure that what was logged before it is all there.
    """

    def __init__(self, directory: Path, *, step: int = 0, mark: Mark | None = None, writes: bool = True) -> None:
        """Opens the log of a run that goes on from `step`; `mark` is None for one that begins.

        With `writes` off it only keeps account, as the other processes do of what the first one writes.

        Raises:
            RunError: what stood in the log at `mark` is not there any more.
        """
        self._path, self._events_directory = directory / "metrics.jsonl", directory / "tensorboard"
        content = self._path.read_bytes()[: mark.bytes] if mark and self._path.is_file() else b""
        self._written, self._hash = len(content), digest.running(content)
        if mark is not None and mark != self._mark():
            raise RunError(
                f"{self._path} is damaged: it is not what it was when the checkpoint of step {step} was saved; "
                "bring it back, or begin anew in another --workdir"
            )
        self._file: BinaryIO = io.BytesIO()
        if writes:
            with _writing(self._path):
                self._file = self._path.open("ab")
                self._file.truncate(self._written)
        self.accuracies = accuracies(parse(content))
        """Validation accuracy by step, as logged when it was opened."""
        self._events: _Events | None = None
        if writes:
            with _writing(self._events_directory):
                self._events = _Events(self._events_directory, step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # whatever mattered was brought to disk before, or has raised already
            self._file.close()
            if self._events is not None:
                self._events.close()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs the scalars after `step` steps; their names read like `train.loss`.

        A value that is not finite stands as null in metrics.jsonl: JSON has no word for it.

        Raises:
            RunError: the file cannot be written.
        """
        finite = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        line = (json.dumps({"step": step, **finite}) + "\n").encode()
        with _writing(self._path):
            self._file.write(line)
            self._file.flush()
        self._written += len(line)
        self._hash.update(line)
        self.write_events(step, scalars)

    def write_events(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs to TensorBoard alone: for timings, which no two runs have in common."""
        if self._events is None:
            return
        with _writing(self._events_directory):
            for name, value in scalars.items():
                self._events.add(name.replace(".", "/"), value, step)
            self._events.flush(at_most_every=10.0)

    def sync(self) -> Mark:
        """Brings all that was logged to disk, so that no checkpoint can be ahead of it, and returns how far it is.

        Raises:
            RunError: the file cannot be written.
        """
        if not isinstance(self._file, io.BytesIO):
            with _writing(self._path):
                os.fsync(self._file.fileno())
        if self._events is not None:
            with _writing(self._events_directory):
                self._events.flush()
        return self._mark()

    def _mark(self) -> Mark:
        return Mark(self._written, self._hash.hexdigest())


def parse(content: bytes) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl, without one that is just being written, or was cut off in writing.

    Raises:
        RunError: a line is not one of metrics.
    """
    lines = []
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            logged = json.loads(line)
            numbers = all(isinstance(value, int | float | None) for value in logged.values())
        except (ValueError, AttributeError):
            numbers = False
        if not numbers or not isinstance(logged.get("step"), int):
            raise RunError(f"metrics.jsonl is damaged: line {number} is not one of metrics")
        lines.append(logged)
    return lines


def accuracies(lines: list[dict[str, Any]]) -> dict[int, float]:
    """Returns the validation accuracy by step from the lines of metrics.jsonl."""
    name = "validation.accuracy"
    return {line["step"]: line[name] for line in lines if line.get(name) is not None}


def seconds(directory: Path) -> float | None:
    """Returns how long a run has been at work: the time from first to last event in each of its event files.

    A run that was stopped and went on has one for each time; steps that were taken again count again. The start of
    the process, and the evaluation of the test split at the end, do not count.

    Returns:
        Seconds; None where there are no events.
    """
    spans = []
    for file in _event_files(directory):
        if times := [event.wall_time for event in _events(file.read_bytes())]:
            spans.append(max(times) - min(times))
    return sum(spans) if spans else None


def rates(directory: Path) -> dict[int, float]:
    """Returns images a second by step, as a run measured them since it was last started."""
    tag = RATE.replace(".", "/")
    return {
        event.step: value.simple_value
        for file in _event_files(directory)
        for event in _events(file.read_bytes())
        for value in event.summary.value
        if value.tag == tag
    }


def _event_files(directory: Path) -> list[Path]:
    return sorted((directory / "tensorboard").glob("events.out.tfevents.*"))


def _events(content: bytes) -> Iterator[Any]:
    """Goes through the events of a file, up to one that was cut off.

    A record is its length as a little-endian uint64, 4 bytes of checksum, the event, and 4 bytes of checksum.
    """
    start = 0
    while start + 12 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 8], "little")
        if end + 4 > len(content):
            return
        yield Event.FromString(content[start + 12 : end])
        start = end + 4


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error
