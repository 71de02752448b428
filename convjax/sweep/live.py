"""What a sweep tells on the terminal while it goes on."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from convjax.errors import RunError
from convjax.sweep.launch import Standing
from convjax.sweep.record import Arm
from convjax.sweep.trials import describe
from convjax.train import log

_ROWS = 12
"""Runs at work that the table shows."""


@dataclasses.dataclass(frozen=True)
class Score:
    """Accuracies of a finished run; no validation accuracy without such a split."""

    validation: float | None
    test: float

    def __str__(self) -> str:
        validation = "" if self.validation is None else f"validation {100 * self.validation:.2f} %  "
        return f"{validation}test {100 * self.test:.2f} %"


def score(arm: Arm) -> Score:
    """Returns the accuracies of a finished run."""
    result = json.loads((arm.directory / "result.json").read_text())
    validation = result["validation"]
    return Score(None if validation is None else validation["accuracy"], result["test"]["accuracy"])


class View:
    """A table on a terminal, that changes; elsewhere a line for each run that begins or ends."""

    def __init__(self, arms: Sequence[Arm], steps: Mapping[str, int], console: Console) -> None:
        """Begins with what is finished already.

        Args:
            arms: the runs of the sweep.
            steps: length of each run by name.
            console: where to print.
        """
        self._arms = {arm.name: arm for arm in arms}
        self._steps, self._console = steps, console
        self._finished = {arm.name: score(arm) for arm in arms if arm.state == "finished"}
        self._failed: list[str] = []
        self._open: set[str] = set(self._arms) - set(self._finished)
        self._standing = Standing(frozenset(), frozenset())
        # Without a thread of its own, which would look at what is being changed.
        live = Live(console=console, get_renderable=self._table, auto_refresh=False)
        self._live = live if console.is_terminal else None
        self._refreshed = 0.0

    def __enter__(self) -> "View":
        if self._finished:
            self.say(f"{len(self._finished)} of {len(self._arms)} runs are finished already")
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Prints a line, above the table where there is one."""
        self._console.print(line, soft_wrap=True)

    def show(self, standing: Standing) -> None:
        """Tells what has changed since the last look."""
        for name in sorted(standing.running - self._standing.running):
            if self._live is None:
                self.say(f"{self._count()} running   {self._described(name)}")
        self._standing = standing
        for name in sorted(self._open - standing.waiting - standing.running):
            self._open.remove(name)
            arm = self._arms[name]
            state = arm.state
            if state == "finished":
                self._finished[name] = score(arm)
                self.say(f"{self._count()} finished  {self._described(name)}  {self._finished[name]}")
            elif state == "failed":
                self._failed.append(name)
                self.say(f"{self._count()} failed    {self._described(name)}  (see {arm.log})")
            else:
                self.say(f"{self._count()} stopped   {self._described(name)}")

        if self._live is not None and time.monotonic() - self._refreshed > 0.5:
            self._live.refresh()
            self._refreshed = time.monotonic()

    def _count(self) -> str:
        return f"[{len(self._finished)}/{len(self._arms)}]"

    def _described(self, name: str) -> str:
        return f"{name}  {describe(self._arms[name].settings)}"

    def _best(self) -> str:
        """Returns the best run so far, chosen as checkpoints are: not by the test split."""
        known = {name: found.validation for name, found in self._finished.items() if found.validation is not None}
        if not known:
            return ""
        best = max(known, key=lambda name: known[name])
        return f"best validation accuracy so far {100 * known[best]:.2f} %: {describe(self._arms[best].settings)}"

    def _table(self) -> Group:
        running = sorted(self._standing.running)
        counts = (
            f"{len(self._finished)} of {len(self._arms)} done, {len(running)} running, {len(self._failed)} failed, "
            f"{len(self._standing.waiting)} waiting"
        )
        table = Table("running", "step", "validation", box=None, header_style="bold")
        for name in running[:_ROWS]:
            step, accuracy = _progress(self._arms[name])
            table.add_row(self._described(name), f"{step}/{self._steps[name]}", accuracy)
        if len(running) > _ROWS:
            table.add_row(f"and {len(running) - _ROWS} more")
        lines = [Text(counts, style="bold"), Text(self._best())]
        return Group(*(line for line in lines if line.plain), *([table] if running else []))


def _progress(arm: Arm) -> tuple[int, str]:
    """Returns the last step that a run has logged, and its last validation accuracy."""
    path = arm.directory / "metrics.jsonl"
    try:
        lines = log.parse(path.read_bytes()) if path.is_file() else []
    except (OSError, RunError):  # the run itself will tell
        lines = []
    accuracies = log.accuracies(lines)
    last = f"{100 * accuracies[max(accuracies)]:.2f} %" if accuracies else ""
    return (lines[-1]["step"] if lines else 0), last
