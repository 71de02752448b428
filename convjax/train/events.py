"""TensorBoard's event files: what a run writes into them, and what is read out of them again."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# tensorboardX imports PyTorch where it is installed, for two seconds and nothing that is used here, and sets a variable
# of this process for a library that it imports at once.
_hidden, _mode = "torch" not in sys.modules, os.environ.get("CRC32C_SW_MODE")
if _hidden:
    sys.modules["torch"] = None  # type: ignore[assignment]
try:
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.record_writer import RecordWriter
    from tensorboardX.summary import scalar
finally:
    if _hidden:
        del sys.modules["torch"]
    if _mode is None:
        os.environ.pop("CRC32C_SW_MODE", None)


RATE, WAITED = "train.images_per_second", "train.waited_for_data"
"""What is logged to TensorBoard alone, for it is of the clock: the latter is a share of the time since the start."""


class Events:
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
