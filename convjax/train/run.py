"""The directory of a run, and what stands in it."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

from convjax.data.splits import DataInfo
from convjax.errors import RunError, UsageError
from convjax.train import experiment
from convjax.train.config import Config, flatten, from_json, to_json


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's directory: config.json, data.json, metrics.jsonl, checkpoints/, tensorboard/, result.json."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def exists(self) -> bool:
        """Says whether the directory holds a run."""
        return (self.path / "config.json").is_file()

    def check(self, config: Config) -> None:
        """Makes sure, without writing anything, that a run of `config` can live here.

        Raises:
            UsageError: the directory holds another configuration, or something else, or cannot be written; or
                the configuration cannot be written as JSON.
        """
        now = to_json(config)
        try:
            if self.exists():
                self._compare(now)
            elif self.path.is_dir() and any(self.path.iterdir()):
                raise UsageError(f"{self.path} is not empty and holds no run (no config.json): take another --workdir")
            nearest = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
            if not nearest.is_dir():
                raise UsageError(f"{self.path} cannot be made: {nearest} is a file; take another --workdir")
            if not os.access(nearest, os.W_OK):
                raise UsageError(f"{nearest} cannot be written: take another --workdir")
        except OSError as error:
            raise UsageError(f"{self.path} cannot be used ({error.strerror}): take another --workdir") from error

    def _compare(self, now: dict[str, Any]) -> None:
        old, new = flatten(self._read("config.json")), flatten(now)
        differing = [
            f"  {key}: {old.get(key, 'absent')!r} there, {new.get(key, 'absent')!r} now"
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
        if differing:
            lines = "\n".join(differing)
            raise UsageError(f"{self.path} holds a run of another configuration; take another --workdir:\n{lines}")

    def create(self, config: Config, data: DataInfo, source: Path | None) -> None:
        """Writes what describes the run, unless it stands there already; config.json last.

        Raises:
            UsageError: the directory cannot be written.
        """
        if self.exists():
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if source is not None:
                shutil.copyfile(source, self.path / "experiment.py")
            self.write("data.json", dataclasses.asdict(data))
            self.write("config.json", to_json(config))
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written ({error.strerror}): take another --workdir") from error

    def write(self, name: str, content: Any) -> None:
        """Writes a JSON file whole or not at all."""
        temporary = self.path / f".{name}.tmp"
        temporary.write_text(json.dumps(content, indent=2) + "\n")
        temporary.replace(self.path / name)

    def read_config(self) -> Config:
        """Returns the run's configuration.

        Raises:
            UsageError: the directory holds no run.
            RunError: config.json is damaged.
        """
        self._require()
        content = self._read("config.json")
        try:
            if content["model"]["type"].startswith(f"{experiment.MODULE}:"):
                experiment.load(self.path / "experiment.py")  # the model's class is defined there
            return from_json(content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._damaged("config.json", error) from error

    def read_info(self) -> DataInfo:
        """Returns what the run knows of its data.

        Raises:
            UsageError: the directory holds no run.
            RunError: data.json is damaged.
        """
        self._require()
        try:
            return DataInfo.from_json(self._read("data.json"))
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged("data.json", error) from error

    def _damaged(self, name: str, error: Exception) -> RunError:
        return RunError(f"{self.path / name} is damaged: {type(error).__name__}: {error}")

    def _require(self) -> None:
        if not self.path.is_dir():
            raise UsageError(f"{self.path}: there is no such directory")
        if not self.exists():
            raise UsageError(f"{self.path} holds no run: it has no config.json")

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / name} cannot be read: {error}") from error
        return content
