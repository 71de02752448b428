"""What a checkpoint says of itself: a digest of each array, and how far the metrics were logged."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from numpy.typing import NDArray

from convjax.digest import array_digest, digest
from convjax.train.log import Mark
from convjax.train.patterns import path_name


def arrays(state: Any) -> dict[str, str]:
    """Returns each array of a tree by its path, as `float32[3, 3, 16, 32] <digest of its bytes>`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(state)
    return {path_name(path): f"{_kind(leaf)} {array_digest(_whole(leaf))}" for path, leaf in flat}


def _whole(leaf: Any) -> NDArray[Any]:
    """Returns an array that may be divided among processes, all of which must ask for it."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated:
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def _kind(leaf: Any) -> str:
    return f"{jnp.dtype(leaf.dtype)}{list(leaf.shape)}"


@dataclasses.dataclass(frozen=True)
class Record:
    """Attributes:
    step: steps done.
    arrays: see `arrays`.
    log: how far the metrics were logged.
    """

    step: int
    arrays: dict[str, str]
    log: Mark

    def to_json(self) -> dict[str, Any]:
        """Returns the record as what JSON knows, with a digest of itself."""
        content = dataclasses.asdict(self)
        return {**content, "digest": digest(json.dumps(content, sort_keys=True).encode())}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Record":
        """Returns the record that `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: it is not what was written.
        """
        record = cls(content["step"], content["arrays"], Mark(**content["log"]))
        if record.to_json() != content:
            raise ValueError("its record is not what was saved")
        return record

    def mismatch(self, like: Any) -> str | None:
        """Returns the first array whose path, type or shape is another in `like`, in words; None where all agree."""
        there = {name: kind.rpartition(" ")[0] for name, kind in self.arrays.items()}
        flat, _ = jax.tree_util.tree_flatten_with_path(like)
        here = {path_name(path): _kind(leaf) for path, leaf in flat}
        for name in sorted({*there, *here}):
            if there.get(name) != here.get(name):
                return f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} in this one"
        return None

    def changed(self, state: Any) -> str | None:
        """Returns the path of the first array that is not what was recorded; None where all are."""
        now = arrays(state)
        return next((name for name in self.arrays if now.get(name) != self.arrays[name]), None)
