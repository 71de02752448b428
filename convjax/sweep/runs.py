"""All runs below a directory, those of sweeps and others: how each stands, its settings, its results."""

import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from convjax.errors import RunError, UsageError
from convjax.sweep import record
from convjax.sweep.metric import Metric, is_number
from convjax.sweep.record import Arm, State, Sweep
from convjax.sweep.results import problem, shortened
from convjax.train import lock
from convjax.train.flat import flatten
from convjax.train.run import FIRST_FILES, Run

Status: TypeAlias = Literal["finished", "running", "interrupted", "failed", "pruned", "not started", "damaged"]

ABSENT: Final = object()
"""The value of what a run does not have."""
_PARTS = {"model", "data", "optim", "train", "seed"}
"""What config.json has at least, if it is one of a run."""

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Row:
    """A run.

    Attributes:
        name: of its directory, from where it was looked for.
        directory: its directory.
        status: how it stands.
        problem: why it has not finished; empty where there is nothing to say.
        settings: fields of its configuration by their paths, and in a sweep its value on each axis.
        results: numbers of result.json by their paths.
    """

    name: str
    directory: Path
    status: Status
    problem: str
    settings: Mapping[str, Any]
    results: Mapping[str, float]

    @property
    def configured(self) -> bool:
        """Whether `settings` holds a configuration, and not an axis' value alone."""
        return self.settings.keys() >= {"seed", "train.length"}

    def get(self, field: str) -> Any:
        """Returns a setting, a result, or a number of metrics.jsonl; `ABSENT` where the run has none of that name.

        The name is `run`, `status`, `problem` or `step` (the last one logged), or a path as optim.lr, test.accuracy
        or validation.accuracy:best.
        """
        if field in ("run", "status", "problem"):
            return {"run": self.name, "status": self.status, "problem": self.problem}[field]
        for known in (self.settings, self.results):
            if field in known:
                return known[field]
        if field == "step":
            return self.lines[-1]["step"] if self.lines else ABSENT
        try:
            metric = Metric.parse(field)
        except UsageError:
            return ABSENT
        logged = metric.source != "result" and any(metric.field in line for line in self.lines)
        return metric.among(self.lines) if logged else ABSENT

    @functools.cached_property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; none where it is damaged, which is warned of."""
        try:
            return Run(self.directory).metrics()
        except (RunError, OSError) as error:
            _logger.warning("%s: %s", self.directory, error)
            return []

    def fields(self) -> list[str]:
        """Returns the names that `get` knows of."""
        logged = dict.fromkeys(f"{name}:last" for line in self.lines for name in line if name != "step")
        return ["run", "status", "problem", "step", *self.settings, *self.results, *logged]


def find(root: Path) -> tuple[Row, ...]:
    """Returns all runs in a directory and below it, in the order of their names; warns of what is something else.

    Raises:
        UsageError: there is no such directory, or no run in it.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such directory")
    rows = tuple(_below(root, root))
    if not rows:
        raise UsageError(f"{root} holds no run, and none below it")
    return rows


def _below(directory: Path, root: Path) -> Iterator[Row]:
    try:
        if _is_run(directory):
            yield _row(Run(directory), _name(directory, root))
            return
        children = [child for child in sorted(directory.iterdir()) if child.is_dir() and not _leads_back(child)]
    except OSError as error:
        _logger.warning("%s cannot be read: %s", directory, error.strerror)
        return
    arms = _arms(directory)
    for arm in arms.values():
        yield _arm_row(arm, _name(arm.directory, root))
    strangers = []
    for child in children:
        if arms and child.name == "runs":
            # What a sweep trained before its recipe was changed is no longer among its runs.
            others = (run for run in sorted(child.iterdir()) if run.is_dir() and run not in arms)
            found = [row for other in others for row in _below(other, root)]
        else:
            found = list(_below(child, root))
        yield from found
        if not found and not arms:
            strangers.append(child.name)
    if strangers and len(strangers) < len(children):
        _logger.warning("no runs in %s of %s", ", ".join(strangers), directory)


def _leads_back(child: Path) -> bool:
    """Says whether a directory is not to be looked into: a hidden one, or a link to one that it lies in itself."""
    return child.name.startswith(".") or (child.is_symlink() and child.parent.resolve().is_relative_to(child.resolve()))


def _name(directory: Path, root: Path) -> str:
    return str(directory.relative_to(root)) if directory != root else directory.resolve().name


def _is_run(directory: Path) -> bool:
    """Says whether a directory holds a run, were it damaged or just begun."""
    config = directory / "config.json"
    if config.is_file():
        try:
            content = json.loads(config.read_text())
        except (OSError, ValueError):
            return (directory / "environment.json").is_file()
        return isinstance(content, dict) and content.keys() >= _PARTS
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    return "environment.json" in names and names <= FIRST_FILES


def _arms(directory: Path) -> dict[Path, Arm]:
    """Returns the runs of the sweep in a directory by their directories; none where there is none, or it is damaged."""
    if not (directory / record.FILE).is_file():
        return {}
    try:
        return {arm.directory: arm for arm in Sweep.read(directory).runs}
    except (UsageError, RunError) as error:
        _logger.warning("%s", error)
        return {}


def _arm_row(arm: Arm, name: str) -> Row:
    state = arm.state
    if state != "missing":
        found = _row(Run(arm.directory), name, arm.settings, state)
        if state == "failed":
            found = dataclasses.replace(found, status="failed", problem=_said(lambda: problem(arm, "failed")))
        return found
    if not arm.directory.is_dir():
        return Row(name, arm.directory, "not started", "", dict(arm.settings), {})
    found = _row(Run(arm.directory), name, arm.settings)
    if arm.pruned.is_file():
        return dataclasses.replace(found, status="pruned", problem=_said(lambda: problem(arm, "missing")))
    return found


def _row(run: Run, name: str, axes: Mapping[str, Any] = MappingProxyType({}), state: State | None = None) -> Row:
    """Returns a run by what stands in its directory.

    Args:
        run: the run.
        name: what it is called.
        axes: its value on each axis of its sweep.
        state: how it stands, where that is known already.
    """
    settings: dict[str, Any] = {}
    try:
        settings = flatten(run.read_raw_config()) if run.exists() else {}
        results = flatten(run.read_json(run.result.name)) if run.result.is_file() else {}
    except (RunError, UsageError) as error:
        return Row(name, run.path, "damaged", str(error), {**settings, **axes}, {})
    numbers = {field: value for field, value in results.items() if is_number(value)}
    # An arm that is a value of a field stands in the configuration as well.
    settings |= {axis: value for axis, value in axes.items() if axis not in settings}
    status, why = _standing(run, state)
    return Row(name, run.path, status, why, settings, numbers)


def _standing(run: Run, state: State | None) -> tuple[Status, str]:
    """Returns how a run stands by what stands in its directory, and why it has not finished."""
    if state == "finished" or run.result.is_file():
        return "finished", ""
    if state == "running" or lock.held(run.path):
        return "running", ""
    if run.failure.is_file():
        try:
            return "failed", shortened(str(run.read_json(run.failure.name)["error"]))
        except (RunError, KeyError, TypeError):
            return "failed", f"{run.failure} is damaged"
    steps = run.latest_step()
    return "interrupted", f"goes on from step {steps}" if steps else "has no checkpoint yet"


def _said(say: Callable[[], str]) -> str:
    try:
        return say()
    except (RunError, OSError) as error:
        return str(error)
