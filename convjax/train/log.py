"""What a run tells: metrics as JSON lines, TensorBoard events, and progress on the terminal."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from convjax.errors import RunError

# tensorboardX imports PyTorch where it is installed, for two seconds and nothing that is used here.
_hidden = "torch" not in sys.modules
if _hidden:
    sys.modules["torch"] = None  # type: ignore[assignment]
try:
    from tensorboardX import SummaryWriter
finally:
    if _hidden:
        del sys.modules["torch"]


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
    """Keeps the whole lines up to `step`.

    Raises:
        RunError: a line before that is not one of metrics.
    """
    kept = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(keepends=True), start=1):
        if not line.endswith("\n"):  # cut off in writing
            break
        try:
            logged = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}:{number} is not a line of metrics: repair or remove it") from error
        if logged > step:
            break
        kept.append(line)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)


class ProgressReport:
    """A progress bar on a terminal; a plain line now and then elsewhere."""

    def __init__(self, *, step: int, steps: int, batch_size: int, every: float = 10.0) -> None:
        """Begins to report on a run at `step` of `steps`; plain lines come at most each `every` seconds."""
        self._console = Console(soft_wrap=True, highlight=False)
        self._bar: Progress | None = None
        self._steps, self._batch_size, self._every = steps, batch_size, every
        self._step = step
        self._first: tuple[int, float] | None = None
        self._printed = time.monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(),
                TextColumn("{task.description}"),
                TextColumn("{task.fields[rate]:,.0f} images/s"),
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
        """Images a second since the end of the first step, which compiled; 0 before."""
        if self._first is None or self._step == self._first[0]:
            return 0.0
        return (self._step - self._first[0]) * self._batch_size / (time.monotonic() - self._first[1])

    def advance(self, step: int, loss: float, accuracy: float) -> None:
        """Tells that `step` steps are done, and the latest one's loss and accuracy."""
        self._step = step
        if self._first is None:
            self._first = step, time.monotonic()
        text = f"loss {loss:.3f}  accuracy {100 * accuracy:.1f} %"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text, rate=self.rate)
        elif self.rate and time.monotonic() - self._printed >= self._every:
            self._printed = time.monotonic()
            left = (self._steps - step) * self._batch_size / self.rate
            self.say(f"step {step}/{self._steps}  {text}  {self.rate:,.0f} images/s  {left:.0f} s left")

    def say(self, line: str) -> None:
        """Prints a line, above the bar where there is one."""
        (self._bar.console if self._bar is not None else self._console).print(line, markup=False)
