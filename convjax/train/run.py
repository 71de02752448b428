"""The directory of a run, and what stands in it.

What takes JAX is imported only where it is needed: a table of a thousand runs need not wait for it.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convjax.errors import RunError, UsageError
from convjax.files import write_whole
from convjax.train import lock, log
from convjax.train.flat import differences

if TYPE_CHECKING:
    from convjax.data.splits import DataInfo
    from convjax.train.config import Config

_FIRST = ("experiment.py", "environment.json", "data.json", "init.json", "config.json")
FIRST_FILES = {"lock", "processes", *_FIRST, *(f".{name}.tmp" for name in _FIRST)}
"""What stands in a directory whose run was killed before it had written config.json."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's directory.

    It holds config.json, experiment.py, environment.json, data.json, init.json if it starts from weights, lock,
    metrics.jsonl, tensorboard/, checkpoints/, damaged/ if one was, processes/ if there were several, failure.json if
    it has failed, and result.json at the end.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def failure(self) -> Path:
        return self.path / "failure.json"

    @property
    def init(self) -> Path:
        return self.path / "init.json"

    def exists(self) -> bool:
        """Says whether the directory holds a run."""
        return (self.path / "config.json").is_file()

    def check(self) -> None:
        """Makes sure, without writing anything, that a run can live here and that no other process writes it.

        Raises:
            UsageError: the directory holds something else, cannot be written, or is being written.
        """
        try:
            if not self.exists() and self.path.is_dir() and {p.name for p in self.path.iterdir()} - FIRST_FILES:
                raise UsageError(f"{self.path} is not empty and holds no run (no config.json): take another --workdir")
            nearest = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
            if not nearest.is_dir():
                raise UsageError(f"{self.path} cannot be made: {nearest} is a file; take another --workdir")
            if not os.access(nearest, os.W_OK):
                raise UsageError(f"{nearest} cannot be written: take another --workdir")
            lock.Lock(self.path).check()
        except OSError as error:
            raise UsageError(f"{self.path} cannot be used ({error.strerror}): take another --workdir") from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Makes the directory, and keeps other processes from writing into it.

        Raises:
            UsageError: the directory cannot be written, or another process writes it.
        """
        with lock.writing(self.path):
            yield

    def create(
        self,
        config: "Config",
        data: "DataInfo",
        source: Path | None,
        init: dict[str, Any] | None,
        seeds: Sequence[int] = (),
    ) -> None:
        """Writes what describes a new run; config.json last, so that a run that has one has all.

        Args:
            config: the experiment.
            data: what is known of its data.
            source: the file that defines it.
            init: what is known of the weights that it starts from, if it does from some.
            seeds: of all runs that are trained as one program with it, if there are others.

        Raises:
            RunError: a file cannot be written.
        """
        from convjax.train import environment
        from convjax.train.config_json import to_json

        if source is not None:
            self._replace("experiment.py", source.read_bytes())
        self.write("environment.json", {**environment.describe(source, seeds), "resumed": []})
        self.write("data.json", dataclasses.asdict(data))
        if init is not None:
            self.write(self.init.name, init)
        self.write("config.json", to_json(config))

    def resumed(
        self, config: "Config", source: Path | None, changes: dict[str, Any], step: int, seeds: Sequence[int] = ()
    ) -> dict[str, Any]:
        """Writes down that the run goes on from a step, and returns in what the environment differs by now.

        Args:
            config: the experiment as it is now.
            source: the file that defines it.
            changes: value before and value now of each field that differs.
            step: steps done.
            seeds: see `create`.

        Raises:
            RunError: a file cannot be read or written.
        """
        from convjax.train import environment
        from convjax.train.config_json import to_json

        first = self.read_json("environment.json")
        now = environment.describe(source, seeds)
        before = first["resumed"][-1]["numerical"] if first["resumed"] else environment.numerical(first)
        entry = {key: now[key] for key in ("time", "command", "host", "process", "seeds_at_once")}
        entry |= {"step": step, "config": changes, "numerical": environment.numerical(now)}
        # First of all: were the new configuration there with the old result, the run would seem to be finished.
        self.result.unlink(missing_ok=True)
        self.failure.unlink(missing_ok=True)
        self.write("environment.json", {**first, "resumed": [*first["resumed"], entry]})
        if source is not None:
            self._replace("experiment.py", source.read_bytes())
        if changes:
            self.write("config.json", to_json(config))
        return differences(before, entry["numerical"])

    def write(self, name: str, content: Any) -> None:
        """Writes a JSON file whole or not at all.

        Raises:
            RunError: it cannot be written.
        """
        self._replace(name, (json.dumps(content, indent=2) + "\n").encode())

    def _replace(self, name: str, content: bytes) -> None:
        try:
            write_whole(self.path / name, content)
        except OSError as error:
            raise RunError(f"{self.path / name} cannot be written: {error.strerror}") from error

    def latest_step(self) -> int:
        """Returns the step of the latest checkpoint, damaged or not; 0 without one."""
        if not self.checkpoints.is_dir():
            return 0
        return max((int(p.name) for p in self.checkpoints.iterdir() if p.name.isdecimal()), default=0)

    def seeds_at_once(self, step: int) -> tuple[int, ...]:
        """Returns the seeds of all runs whose step this was as well, as one program; empty where it was taken alone.

        Raises:
            RunError: environment.json is damaged.
        """
        first = self.read_json("environment.json")
        starts = [first, *(entry for entry in first["resumed"] if entry["step"] < step)]
        # Runs that are older than this were all alone.
        return tuple(starts[-1].get("seeds_at_once", ()))

    def accuracies(self) -> dict[int, float]:
        """Returns the validation accuracy by step, as far as it has been logged.

        Raises:
            RunError: metrics.jsonl is damaged.
        """
        return log.accuracies(self.metrics())

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl, without one that is just being written.

        Raises:
            RunError: metrics.jsonl is damaged.
        """
        metrics = self.path / "metrics.jsonl"
        return log.parse(metrics.read_bytes()) if metrics.is_file() else []

    def experiment(self) -> str:
        """Returns the run's copy of its experiment file; empty without one."""
        copy = self.path / "experiment.py"
        return copy.read_text(errors="replace") if copy.is_file() else ""

    def read_raw_config(self) -> dict[str, Any]:
        """Returns the run's configuration as it stands in config.json.

        Raises:
            UsageError: the directory holds no run.
            RunError: config.json is damaged.
        """
        self._require()
        return self.read_json("config.json")

    def read_config(self) -> "Config":
        """Returns the run's configuration.

        Raises:
            UsageError: the directory holds no run.
            RunError: config.json is damaged.
        """
        from convjax.train import experiment
        from convjax.train.config_json import from_json

        content = self.read_raw_config()
        try:
            if content["model"]["type"].startswith(f"{experiment.MODULE}:"):
                experiment.load(self.path / "experiment.py")  # the model's class is defined there
            return from_json(content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._damaged("config.json", error) from error

    def read_info(self) -> "DataInfo":
        """Returns what the run knows of its data.

        Raises:
            UsageError: the directory holds no run.
            RunError: data.json is damaged.
        """
        from convjax.data.splits import DataInfo

        self._require()
        try:
            return DataInfo.from_json(self.read_json("data.json"))
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged("data.json", error) from error

    def _damaged(self, name: str, error: Exception) -> RunError:
        return RunError(f"{self.path / name} is damaged: {type(error).__name__}: {error}")

    def _require(self) -> None:
        if not self.path.is_dir():
            raise UsageError(f"{self.path}: there is no such directory")
        if not self.exists():
            raise UsageError(f"{self.path} holds no run: it has no config.json")

    def read_json(self, name: str) -> dict[str, Any]:
        """Returns a JSON file of the run.

        Raises:
            RunError: it cannot be read.
        """
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / name} cannot be read: {error}") from error
        return content
