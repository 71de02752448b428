"""Training from existing weights: what of them a run takes, what it changes, what is new."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
from numpy.typing import NDArray

from convjax.data.splits import DataInfo
from convjax.digest import digest
from convjax.errors import RunError, UsageError, require_shapes
from convjax.train import channels, patterns, weights
from convjax.train.config import Config
from convjax.train.config_json import to_json
from convjax.train.flat import Changes, differences
from convjax.train.record import arrays
from convjax.train.run import Run
from convjax.train.state import TrainState
from convjax.train.weights import Weights

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Start:
    """The weights that a run begins with.

    Attributes:
        path: where they lay.
        source: where these came from; see `Weights`.
        digest: of all their arrays and their normalisation.
        taken: arrays by path, as `params/stem/conv/kernel`, in the shapes that the run has them in.
        changed: paths of those that were made for another number of input channels.
        new: paths of what is initialised.
        left_out: paths of what the run has no use for.
        model: fields in which the models differ.
        classes: why the head may not be what is wanted; empty where it is.
    """

    path: str
    source: Mapping[str, str]
    digest: str
    taken: Mapping[str, NDArray[np.float32]]
    changed: tuple[str, ...]
    new: tuple[str, ...]
    left_out: tuple[str, ...]
    model: Changes
    classes: str

    def to_json(self) -> dict[str, Any]:
        """Returns what the run's directory holds of it: names alone, no arrays."""
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "classes"}
        path = str(Path(self.path).resolve())
        return {**content, "path": path, "source": dict(self.source), "taken": list(self.taken)}

    def describe(self) -> list[str]:
        """Returns lines that say what is taken and what is new."""
        origin = ", ".join(f"{key} {value}" for key, value in self.source.items() if value)
        lines = [f"starts from {len(self.taken)} arrays of {self.path} ({origin}), digest {self.digest}"]
        parts = {"new": self.new, "other input channels": self.changed, "left out": self.left_out}
        lines += [f"  {part}: {', '.join(names)}" for part, names in parts.items() if names]
        lines += [f"  model.{field} is {now!r}, it was {there!r}" for field, (there, now) in self.model.items()]
        return lines + ([f"  {self.classes}"] if self.classes else [])


def find(config: Config, run: Run) -> Weights | None:
    """Returns the weights that a configuration starts from; None without them.

    A run that has a checkpoint does not need them; where they are still there they must be what it began with.

    Raises:
        UsageError: there are no weights, or no longer those that the run began with.
        RunError: they are damaged.
    """
    if config.train.init_from is None:
        return None
    path = Path(config.train.init_from)
    exists = run.exists()
    if exists and run.latest_step() and not path.exists() and _path_of(run) == config.train.init_from:
        _logger.warning("train.init_from is %s, which is no longer there; the run goes on from its checkpoint", path)
        return None
    found = read(path)
    if exists:
        _require_same(found, run)
    return found


def begun_with(config: Config, run: Run, shapes: TrainState, info: DataInfo) -> Mapping[str, NDArray[np.float32]]:
    """Returns what a run took of weights, nothing where it did not; for whoever takes its first step again.

    Raises:
        UsageError: they are no longer there, or no longer what they were.
        RunError: they are damaged.
    """
    if config.train.init_from is None:
        return {}
    found = read(Path(_known(run, "path")))
    _require_same(found, run)
    return fit(found, config, shapes, info).taken


def read(path: Path) -> Weights:
    if path.is_file():
        raise UsageError(
            f"train.init_from is {path}: it must be a directory, of a run or of weights; "
            "convjax weights import makes one of a file"
        )
    try:
        return weights.of(path)
    except (UsageError, RunError) as error:
        raise type(error)(f"train.init_from is {path}: {error}") from error


def _path_of(run: Run) -> str | None:
    path: str | None = run.read_raw_config()["train"]["init_from"]
    return path


def _known(run: Run, field: str) -> str:
    """Returns what a run knows of the weights that it began with."""
    try:
        return str(run.read_json(run.init.name)[field])
    except KeyError as error:
        raise RunError(f"{run.init} is damaged: it has no {field}") from error


def _require_same(found: Weights, run: Run) -> None:
    began, now = _known(run, "digest"), weights_digest(found)
    if began != now:
        raise UsageError(
            f"{run.path} began with other weights than train.init_from holds now (digest {began} there, {now} now): "
            "take another --workdir"
        )


def weights_digest(found: Weights) -> str:
    """Returns a digest of all arrays, and of the normalisation that they expect."""
    content = {"arrays": arrays(found.variables), "normalise": dataclasses.asdict(found.normalise)}
    return digest(json.dumps(content, sort_keys=True).encode())


def fit(found: Weights, config: Config, shapes: TrainState, info: DataInfo) -> Start:
    """Returns what a run takes of weights.

    Where the number of classes differs, what has as many outputs as there are classes is new: the head. Where images
    have another number of channels, a convolution of them is changed, see `convjax.train.channels.mix`. What a
    pattern of `train.init_new` matches is new. All else must agree.

    Args:
        found: the weights.
        config: of the run.
        shapes: of its state.
        info: what is known of its data.

    Raises:
        UsageError: something is missing, in excess or of another shape, each by its path; or a pattern matches nothing.
    """
    assert config.train.init_from is not None
    there = weights.flat(found.variables)
    own = weights.flat({"params": shapes.params, "batch_stats": shapes.batch_stats})
    here = {path: tuple(leaf.shape) for path, leaf in own.items()}
    anew = config.train.init_new
    patterns.check("train.init_new", anew, dict.fromkeys(map(_name, [*here, *there])))
    classes = len(found.class_names), len(info.class_names)
    depths = found.image[-1], info.image[-1]
    taken: dict[str, NDArray[np.float32]] = {}
    changed, new = [], []
    for path, shape in here.items():
        old = np.shape(there[path]) if path in there else None
        if patterns.matches(_name(path), anew) or (old and _differ_in(-1, old, shape, classes)):
            new.append(path)
        elif old == shape:
            taken[path] = np.asarray(there[path], np.float32)
        elif old and len(shape) == 4 and _differ_in(-2, old, shape, depths):
            taken[path] = channels.rechannelled(there[path], depths[1])
            changed.append(path)
    left_out = tuple(path for path in there if path not in here and patterns.matches(_name(path), anew))
    settled = {*taken, *new, *left_out}
    model = _model_changes(found.model, config.model)
    differ = "".join(f"\n  model.{field}: {a!r} there, {b!r} in this run" for field, (a, b) in model.items())
    try:
        require_shapes(
            "the network of the weights",
            {path: shape for path, shape in here.items() if path not in settled},
            {path: np.shape(value) for path, value in there.items() if path not in settled},
        )
    except UsageError as error:
        raise UsageError(f"train.init_from is {config.train.init_from}: {error}{differ}") from error
    same_count = classes[0] == classes[1] and found.class_names != info.class_names
    return Start(
        path=config.train.init_from,
        source=found.source,
        digest=weights_digest(found),
        taken=taken,
        changed=tuple(changed),
        new=tuple(new),
        left_out=left_out,
        model=model,
        classes="the classes have other names; --train.init-new 'head/*' makes the head anew" if same_count else "",
    )


def _name(path: str) -> str:
    """Returns a variable's path without the collection that it is in, as patterns have it."""
    return path.partition("/")[2]


def _differ_in(axis: int, old: Sequence[int], new: Sequence[int], sizes: tuple[int, int]) -> bool:
    """Says whether two shapes differ in one axis alone, which has these sizes."""
    if len(old) != len(new) or len(new) < -axis or sizes[0] == sizes[1]:
        return False
    rest = [[size for i, size in enumerate(shape) if i != len(shape) + axis] for shape in (old, new)]
    return rest[0] == rest[1] and (old[axis], new[axis]) == sizes


def _model_changes(there: nn.Module, here: nn.Module) -> Changes:
    """Returns the fields in which two models differ, but for the number of classes."""
    changes = differences(to_json(there), to_json(here))
    changes.pop("num_classes", None)
    return changes
