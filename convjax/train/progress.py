"""What a run tells on the terminal while it goes on."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressReport:
    """A progress bar on a terminal; a plain line now and then elsewhere."""

    def __init__(
        self, *, step: int, steps: int, batch_size: int, every: float = 10.0, quiet: bool = False, name: str = ""
    ) -> None:
        """Begins to report on a run at `step` of `steps`; plain lines come at most each `every` seconds.

        Of several runs at once each is given a name, for its lines to begin with, and none has a bar.
        """
        self._console = Console(soft_wrap=True, highlight=False, quiet=quiet)
        self._bar: Progress | None = None
        self._prefix = f"{name}: " if name else ""
        self._steps, self._batch_size, self._every = steps, batch_size, every
        self._step = step
        self._first: tuple[int, float] | None = None
        self._printed = time.monotonic()
        if self._console.is_terminal and not quiet and not name:
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
        (self._bar.console if self._bar is not None else self._console).print(self._prefix + line, markup=False)
