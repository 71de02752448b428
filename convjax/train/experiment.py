"""Experiment files: Python files that define `config`, and maybe what a sweep varies in it."""

import contextlib
import dataclasses
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from convjax.errors import UsageError
from convjax.train.config import Config

MODULE = "experiment"
"""Name under which an experiment file is imported, so that a run can find classes defined in it again."""


SWEPT = {"config", "axes", "keep"}
"""What an experiment file defines besides code: what of it takes part in a run is known by the run's configuration."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What an experiment file defines.

    Attributes:
        path: the file.
        config: the configuration.
        axes: what a sweep varies, as it stands there; `convjax.sweep.axes` makes sense of it.
        keep: says of a combination's settings whether a sweep has it; None keeps all.
    """

    path: Path
    config: Config
    axes: Mapping[str, Any]
    keep: Callable[[Mapping[str, Any]], bool] | None


def load(path: Path) -> Config:
    """Returns the configuration that an experiment file defines.

    Raises:
        UsageError: see `read`.
    """
    return read(path).config


def read(path: Path) -> Experiment:
    """Returns what an experiment file defines.

    Raises:
        UsageError: the file is missing, fails, defines no `config`, or something else as `axes` or `keep`.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such experiment file")
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: an experiment is a Python file, its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    try:
        spec.loader.exec_module(module)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except Exception as error:  # whatever the file's author got wrong
        inside = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = f":{inside[-1].lineno}" if inside else ""
        what = f"{type(error).__name__}: {error}{_beside(path, error)}"
        raise UsageError(f"{path}{line}: the experiment fails: {what}") from error
    config = getattr(module, "config", None)
    if not isinstance(config, Config):
        found = "no `config`" if config is None else f"a `config` of type {type(config).__name__}"
        raise UsageError(f"{path}: the experiment defines {found}: it must define config = Config(model=..., ...)")
    axes, keep = getattr(module, "axes", {}), getattr(module, "keep", None)
    if not isinstance(axes, Mapping):
        raise UsageError(f"{path}: `axes` is a {type(axes).__name__}: it must be a dict such as {{'seed': range(3)}}")
    if not (keep is None or callable(keep)):
        raise UsageError(
            f"{path}: `keep` is a {type(keep).__name__}: it must be a function of a combination's settings"
        )
    return Experiment(path, config, axes, keep)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Lets another run's experiment be loaded, after which classes are found in the one that was loaded before."""
    own = sys.modules.pop(MODULE, None)
    try:
        yield
    finally:
        sys.modules.pop(MODULE, None)
        if own is not None:
            sys.modules[MODULE] = own


def _beside(path: Path, error: Exception) -> str:
    """Returns what to do where a module that is not found lies beside the experiment; else nothing."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not name or not ((path.parent / f"{name}.py").is_file() or (path.parent / name).is_dir()):
        return ""
    return (
        f" (it lies beside the experiment, but a run keeps a copy of that file alone: define the model in {path.name}, "
        f"or install {name} as a package)"
    )
