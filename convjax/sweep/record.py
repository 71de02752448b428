"""What a sweep writes down: which runs it consists of, and how each of them stands."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from convjax.errors import RunError, UsageError
from convjax.train import lock
from convjax.train.interrupts import SIGNALS, exit_code

Value: TypeAlias = Any
"""What JSON knows: the value of a field, or the name of an arm."""
State: TypeAlias = Literal["finished", "running", "failed", "missing"]

FORMAT = 1
FILE = "sweep.json"
COPY = "experiment.py"
STOPPED = {exit_code(number) for number in SIGNALS}
"""Exit codes of runs that were stopped, and go on where they were."""
_DIGITS = 12


@dataclasses.dataclass(frozen=True)
class Arm:
    """A run of a sweep.

    Attributes:
        digest: of what decides on its numbers; no two runs of a sweep share one.
        directory: its run directory, the sweep's runs/<first 12 digits>.
        settings: value by axis.
    """

    digest: str
    directory: Path
    settings: Mapping[str, Value]

    @classmethod
    def of(cls, sweep: Path, digest: str, settings: Mapping[str, Value]) -> "Arm":
        """Returns the run of a digest in a sweep's directory."""
        return cls(digest, sweep / "runs" / digest[:_DIGITS], settings)

    @property
    def name(self) -> str:
        """The first digits of the digest."""
        return self.directory.name

    @property
    def log(self) -> Path:
        """The output of the run's process."""
        return self.directory.parents[1] / "logs" / f"{self.name}.txt"

    @property
    def exit(self) -> Path:
        """Where the exit code of the run's process is written when it ends; absent before."""
        return self.log.with_suffix(".exit")

    @property
    def pruned(self) -> Path:
        """Where a search that stops the run as hopeless writes down after which step; absent if none has."""
        return self.log.with_suffix(".pruned")

    @property
    def state(self) -> State:
        """How the run stands; one that was stopped by a signal or by a power failure counts as missing.

        Before its process has made the run's directory it is not yet `running`.
        """
        if (self.directory / "result.json").is_file():
            return "finished"
        if lock.held(self.directory):
            return "running"
        code = self.exit_code()
        return "missing" if code is None or code in STOPPED else "failed"

    def exit_code(self) -> int | None:
        """Returns the code that the run's process ended with, minus the signal where one killed it; None before."""
        try:
            return int(self.exit.read_text())
        except (OSError, ValueError):
            return None

    def last_lines(self, count: int) -> list[str]:
        """Returns the last lines of the run's output, as many as there are."""
        if not self.log.is_file():
            return []
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 400 * count))
            lines = file.read().decode(errors="replace").splitlines()
        return [line for line in lines if line.strip()][-count:]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep.

    Its directory holds sweep.json, experiment.py, runs/<digest>/ and logs/<digest>.txt.

    Attributes:
        path: its directory.
        experiment: path of the experiment file as it was given.
        axes: values by axis; an arm that is no value of a field stands there by its name.
        runs: one for each combination that is not left out.
    """

    path: Path
    experiment: str
    axes: Mapping[str, tuple[Value, ...]]
    runs: tuple[Arm, ...]

    @classmethod
    def read(cls, path: Path) -> "Sweep":
        """Reads a sweep.

        Raises:
            UsageError: the directory holds none.
            RunError: sweep.json is damaged.
        """
        file = path / FILE
        if not path.is_dir():
            raise UsageError(f"{path}: there is no such directory")
        if not file.is_file():
            raise UsageError(f"{path} holds no sweep: it has no {FILE}")
        try:
            content = json.loads(file.read_text())
            if content["format"] != FORMAT:
                raise UsageError(f"{file} is of format {content['format']}: this version of convjax reads {FORMAT}")
            axes = {name: tuple(values) for name, values in content["axes"].items()}
            runs = tuple(Arm(run["digest"], path / run["directory"], run["settings"]) for run in content["runs"])
            return cls(path, content["experiment"], axes, runs)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{file} is damaged: {type(error).__name__}: {error}") from error

    def write(self) -> None:
        """Writes sweep.json whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        runs = [
            {"digest": run.digest, "directory": str(run.directory.relative_to(self.path)), "settings": run.settings}
            for run in self.runs
        ]
        content = {"format": FORMAT, "experiment": self.experiment, "axes": self.axes, "runs": runs}
        temporary = self.path / f".{FILE}.tmp"
        temporary.write_text(json.dumps(content, indent=2) + "\n")
        temporary.replace(self.path / FILE)


def axes_of(arms: Sequence[Arm]) -> dict[str, tuple[Value, ...]]:
    """Returns the values that runs have on each axis, each once, in their order."""
    return {name: distinct([arm.settings[name] for arm in arms]) for name in (arms[0].settings if arms else ())}


def distinct(values: Sequence[Value]) -> tuple[Value, ...]:
    """Returns values, each once, in their order."""
    return tuple(value for i, value in enumerate(values) if value not in values[:i])
