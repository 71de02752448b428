"""What a run writes down of its course: metrics as JSON lines, and from there to whoever draws them."""

import contextlib
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from convjax import digest
from convjax.errors import RunError
from convjax.train.events import Events
from convjax.train.wandb_log import WandbLog


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
    """Writes scalars to metrics.jsonl, one object a line, to TensorBoard, and to Weights & Biases if that is wanted.

    A run that goes on from a checkpoint first takes back what was logged after it, so that no step stands
    there twice, and makes sure that what was logged before it is all there.
    """

    def __init__(
        self,
        directory: Path,
        *,
        step: int = 0,
        mark: Mark | None = None,
        writes: bool = True,
        wandb: WandbLog | None = None,
    ) -> None:
        """Opens the log of a run that goes on from `step`; `mark` is None for one that begins.

        With `writes` off it only keeps account, as the other processes do of what the first one writes. What has been
        logged before and not been handed to `wandb` is handed over now.

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
        lines = parse(content)
        self._lines, self._wandb = len(lines), wandb
        self.accuracies = accuracies(lines)
        """Validation accuracy by step, as logged when it was opened."""
        self._events: Events | None = None
        if writes:
            with _writing(self._events_directory):
                self._events = Events(self._events_directory, step)
        if wandb is not None:
            for number, line in enumerate(lines):
                wandb.write(number, line["step"], {name: line[name] for name in line if name != "step"})

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
        if self._wandb is not None:
            self._wandb.write(self._lines, step, scalars)
        self._lines += 1
        self._write_events(step, scalars)

    def write_timings(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs what no two runs have in common, beside the line written last: not to metrics.jsonl."""
        self._write_events(step, scalars)
        if self._wandb is not None:
            self._wandb.write_beside(self._lines - 1, scalars)

    def _write_events(self, step: int, scalars: Mapping[str, float]) -> None:
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


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error
