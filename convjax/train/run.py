"""The directory of a run, and what stands in it."""

import dataclasses
import json
import os
import shutil
import tempfile
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

    def check(self, config: Config) -> None:
        """Makes sure, without writing anything, that a run of `config` can live here.

        Raises:
            UsageError: the directory holds another configuration, or something else, or cannot be written.
        """
        if (self.path / "config.json").is_file():
            old, new = flatten(self._read("config.json")), flatten(json.loads(json.dumps(to_json(config))))
            differing = [
                f"  {key}: {old.get(key, 'absent')!r} there, {new.get(key, 'absent')!r} now"
                for key in sorted({*old, *new})
                if old.get(key) != new.get(key)
            ]
            if differing:
                lines = "\n".join(differing)
                raise UsageError(f"{self.path} holds a run of another configuration; take another --workdir:\n{lines}")
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise UsageError(f"{self.path} is not empty and holds no run (no config.json): take another --workdir")
        nearest = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not nearest.is_dir():
            raise UsageError(f"{self.path} cannot be made: {nearest} is a file; take another --workdir")
        if not os.access(nearest, os.W_OK):
            raise UsageError(f"{nearest} cannot be written: take another --workdir")

    def create(self, config: Config, data: DataInfo, source: Path | None) -> None:
        """Writes what describes the run, unless it stands there already; config.json last.

        Raises:
            UsageError: the directory cannot be written.
        """
        if (self.path / "config.json").is_file():
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
        with tempfile.NamedTemporaryFile("w", dir=self.path, prefix=f".{name}-", delete=False) as file:
            json.dump(content, file, indent=2)
            file.write("\n")
        Path(file.name).replace(self.path / name)

    def read_config(self) -> Config:
        """Returns the run's configuration.

        Raises:
            UsageError: the directory holds no run.
        """
        self._require()
        json = self._read("config.json")
        if str(json["model"]["type"]).startswith(f"{experiment.MODULE}:"):
            experiment.load(self.path / "experiment.py")  # the model's class is defined there
        return from_json(json)

    def read_info(self) -> DataInfo:
        """Returns what the run knows of its data.

        Raises:
            UsageError: the directory holds no run.
        """
        self._require()
        return DataInfo.from_json(self._read("data.json"))

    def read_result(self) -> dict[str, Any] | None:
        """Returns the result of a run that is done, else None."""
        return self._read("result.json") if (self.path / "result.json").is_file() else None

    def _require(self) -> None:
        if not self.path.is_dir():
            raise UsageError(f"{self.path}: there is no such directory")
        if not (self.path / "config.json").is_file():
            raise UsageError(f"{self.path} holds no run: it has no config.json")

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / name} cannot be read: {error}") from error
        return content
