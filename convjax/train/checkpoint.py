"""Checkpoints with Orbax: saved asynchronously, the latest two and the best by validation accuracy kept."""

from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, cast

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from convjax.errors import RunError, UsageError
from convjax.train.optim import path_name
from convjax.train.state import TrainState

Which: TypeAlias = Literal["best", "latest"] | int

_METRIC = "validation.accuracy"


class Checkpoints:
    """The checkpoints of one run; a context manager, whose end waits for the save in flight."""

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        """Opens the directory of checkpoints; created unless `read_only`."""
        keep = AnyPreservationPolicy(
            [LatestN(2), BestN(get_metric_fn=_metric, n=1, keep_checkpoints_without_metrics=False)]
        )
        options = ocp.CheckpointManagerOptions(
            best_fn=_metric, preservation_policy=keep, read_only=read_only, create=not read_only
        )
        self._directory = directory
        try:
            self._manager = ocp.CheckpointManager(
                directory.resolve(), options=options, item_handlers=ocp.StandardCheckpointHandler()
            )
        except Exception as error:  # Orbax raises whatever the layer that failed raises
            raise RunError(
                f"{directory}: the checkpoints cannot be read, a file is damaged: {_first_line(error)}"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._manager.close()

    def save(self, state: TrainState, validation_accuracy: float | None) -> None:
        """Starts to save a state under its step; does nothing where that step is saved already."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        # A copy: the next step donates the state's buffers while the save still reads them.
        copied = jax.tree.map(jnp.copy, state)
        metrics = None if validation_accuracy is None else {_METRIC: validation_accuracy}
        try:
            started = self._manager.save(step, args=ocp.args.StandardSave(copied), metrics=metrics)
        except Exception as error:
            raise self._not_saved(error) from error
        if not started:
            raise RunError(f"{self._directory}: the checkpoint of step {step} was not saved")

    def wait(self) -> None:
        """Waits until the save in flight is on disk."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._not_saved(error) from error

    def _not_saved(self, error: Exception) -> RunError:
        return RunError(f"{self._directory}: a checkpoint cannot be saved: {_first_line(error)}")

    def latest_step(self) -> int | None:
        """Returns the step of the latest checkpoint, or None."""
        return cast("int | None", self._manager.latest_step())

    def step_of(self, which: Which) -> int:
        """Returns the step of a checkpoint; the latest is the best where no validation accuracy was saved.

        Raises:
            UsageError: there is no such checkpoint.
        """
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise UsageError(f"{self._directory}: the run has no checkpoint yet")
        if which == "best":
            return cast(int, self._manager.best_step() or steps[-1])
        if which == "latest":
            return steps[-1]
        if which not in steps:
            raise UsageError(f"{self._directory}: there is no checkpoint of step {which}, only of {steps}")
        return which

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Returns the state saved at `step`, on the devices and with the shapes of `like`.

        Raises:
            RunError: the checkpoint is damaged or belongs to another network.
        """

        def describe(leaf: Any) -> Any:
            return jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
            )

        target = jax.tree.map(describe, like)
        try:
            saved = self._manager.item_metadata(step)
            self._compare(step, getattr(saved, "tree", saved), target)
            return cast(TrainState, self._manager.restore(step, args=ocp.args.StandardRestore(target)))
        except RunError:
            raise
        except Exception as error:
            raise RunError(
                f"{self._directory / str(step)}: the checkpoint cannot be restored, it is damaged: {_first_line(error)}"
            ) from error

    def _compare(self, step: int, saved: Any, target: TrainState) -> None:
        """Makes sure that the saved arrays are those of `target`; Orbax itself would cast dtypes silently."""
        there, here = _arrays(saved), _arrays(target)
        for name in sorted({*there, *here}):
            if there.get(name) != here.get(name):
                raise RunError(
                    f"{self._directory / str(step)}: the checkpoint cannot be restored, it is another network's: "
                    f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} in this one"
                )


def _arrays(tree: Any) -> dict[str, str]:
    """Returns dtype and shape of each array in a tree by its path."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_name(path): f"{jnp.dtype(leaf.dtype)}{list(leaf.shape)}" for path, leaf in flat}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _metric(metrics: Any) -> float:
    return float(metrics[_METRIC])
