"""What a run tells: metrics as JSON lines, TensorBoard events, and progress on the terminal."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from tensorboardX import SummaryWriter


class MetricsLog:
    """Writes scalars to metrics.jsonl, one object a line, and to TensorBoard event files.

    A run that goes on from a checkpoint first takes back what was logged after it, so that no step stands
    there twice.
    """

    def __init__(self, directory: Path, *, step: int) -> None:
        """Opens the log of a run that has done `step` steps."""
        path = directory / "metrics.jsonl"
        if path.is_file():
            _truncate(path, step)
        self._file = path.open("a")
        self._events = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1, write_to_disk=True)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()
        self._events.close()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs the scalars after `step` steps; their names read like `train.loss`."""
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()
        self.write_events(step, scalars)

    def write_events(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs to TensorBoard alone: for timings, which no two runs have in common."""
        for name, value in scalars.items():
            self._events.add_scalar(name.replace(".", "/"), value, step)


def _truncate(path: Path, step: int) -> None:
    """Keeps the whole lines up to `step`."""
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['rate']:,.0f} images/s" if task.fields["rate"] else "")


class ProgressReport:
    """A progress bar on a terminal; a plain line now and then elsewhere."""

    def __init__(self, *, step: int, steps: int, batch_size: int, every: float = 10.0) -> None:
        """Begins to report on a run at `step` of `steps`; plain lines come at most each `every` seconds."""
        self._console = Console(soft_wrap=True, highlight=False)
        self._bar: Progress | None = None
        self._step, self._steps, self._batch_size, self._every = step, steps, batch_size, every
        self._text = ""
        self._began, self._first = time.monotonic(), step
        self._compiled = False
        self._printed = self._began
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(),
                TextColumn("{task.description}"),
                _Rate(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("compiling", completed=step, total=steps, rate=0.0)

    def __enter__(self) -> "ProgressReport":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def rate(self) -> float:
        """Images a second since the first step, which compiles, was done; 0 before."""
        elapsed = time.monotonic() - self._began
        return (self._step - self._first) * self._batch_size / elapsed if self._step > self._first else 0.0

    def advance(self, step: int) -> None:
        """Tells that `step` steps are done."""
        if not self._compiled:  # time from here, after the first step, which compiled
            self._began, self._first, self._compiled = time.monotonic(), step, True
        self._step = step
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=self._text or "training", rate=self.rate)
        elif time.monotonic() - self._printed >= self._every:
            self._printed = time.monotonic()
            left = (self._steps - step) * self._batch_size / self.rate if self.rate else 0.0
            self.say(f"step {step}/{self._steps}  {self._text}  {self.rate:,.0f} images/s  {left:.0f} s left")

    def metrics(self, loss: float, accuracy: float) -> None:
        """Tells the latest loss and training accuracy, for the next report."""
        self._text = f"loss {loss:.3f}  accuracy {100 * accuracy:.1f} %"

    def say(self, line: str) -> None:
        """Prints a line, above the bar where there is one."""
        (self._bar.console if self._bar is not None else self._console).print(line, markup=False)
