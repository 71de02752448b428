"""Checkpoints with Orbax: saved asynchronously, each with digests, the latest and the best kept.

Orbax itself restores flipped bits silently. So each checkpoint carries a record with a digest of every array
of the state, which is verified when it is read; a damaged checkpoint is set aside for the one before it.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, cast

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from convjax.errors import RunError, UsageError
from convjax.train import processes
from convjax.train.log import Mark
from convjax.train.record import Record, arrays
from convjax.train.state import TrainState

Which: TypeAlias = Literal["best", "latest"] | int

_logger = logging.getLogger(__name__)
_copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))


class DamagedError(RunError):
    """A checkpoint's files are not what was saved."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint as read back.

    Attributes:
        step: steps done.
        state: the state after them.
        log: how far the metrics had been logged.
    """

    step: int
    state: TrainState
    log: Mark


class Checkpoints:
    """The checkpoints of one run; a context manager, whose end waits for the save in flight."""

    def __init__(
        self, directory: Path, accuracies: Mapping[int, float], *, keep: int = 2, read_only: bool = False
    ) -> None:
        """Opens the directory of checkpoints; created unless `read_only`.

        Args:
            directory: where they lie.
            accuracies: validation accuracy by step, which decides on the best; may grow while the run goes on.
            keep: how many of the latest are kept.
            read_only: leave everything as it is; damaged checkpoints stay where they are.
        """
        self._directory, self._accuracies, self._read_only = directory, accuracies, read_only
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else _LatestAndBest(accuracies, keep),
            read_only=read_only,
            create=not read_only,
            # What a killed process left half-written.
            cleanup_tmp_directories=not read_only,
        )
        handlers = {"state": ocp.StandardCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}
        try:
            self._manager = ocp.CheckpointManager(directory.resolve(), options=options, item_handlers=handlers)
        except Exception as error:  # Orbax raises whatever the layer that failed raises
            raise RunError(f"{directory}: the checkpoints cannot be opened: {_first_line(error)}") from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        try:
            self._manager.close()
        except Exception as error:
            if kind is None:
                raise self._not_saved(error) from error
            _logger.warning("%s", self._not_saved(error))  # what was raised first is what is to be told

    def save(self, state: TrainState, log: Mark) -> None:
        """Starts to save a state under its step; does nothing where that step is saved already.

        Args:
            state: the state.
            log: how far the metrics have been logged, all of it on disk.

        Raises:
            RunError: this save, or the one before it, failed.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        # A copy: the next step donates the state's buffers while the save still reads them.
        copied = _copy(state)
        record = Record(step, arrays(copied), log).to_json()
        items = ocp.args.Composite(state=ocp.args.StandardSave(copied), record=ocp.args.JsonSave(record))
        try:
            started = self._manager.save(step, args=items)
        except Exception as error:
            raise self._not_saved(error) from error
        if not started:
            raise RunError(f"{self._directory}: the checkpoint of step {step} was not saved")

    def wait(self) -> None:
        """Waits until the save in flight is on disk.

        Raises:
            RunError: it failed.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._not_saved(error) from error

    def _not_saved(self, error: Exception) -> RunError:
        earlier = [step for step in self.steps() if (self._directory / str(step)).is_dir()]
        kept = f"the checkpoint of step {max(earlier)} is untouched" if earlier else "there is none before it"
        return RunError(f"{self._directory}: a checkpoint cannot be saved ({kept}): {_first_line(error)}")

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, rising."""
        return sorted(self._manager.all_steps())

    def candidates(self, which: Which) -> list[int]:
        """Returns the steps to take a checkpoint from, the first choice first.

        `best` goes by validation accuracy, of equals the later, then those without one; `latest` by step.

        Raises:
            UsageError: there is no such checkpoint.
        """
        steps = self.steps()
        if not steps:
            raise UsageError(f"{self._directory}: the run has no checkpoint yet")
        if which == "best":
            return sorted(steps, key=lambda step: (self._accuracies.get(step, -1.0), step), reverse=True)
        if which == "latest":
            return steps[::-1]
        if which not in steps:
            raise UsageError(f"{self._directory}: there is no checkpoint of step {which}, only of {steps}")
        return [which]

    def restore(self, which: Which, like: TrainState) -> Saved:
        """Returns a checkpoint, verified, with the shapes of `like` and on its devices.

        A damaged one is named in a warning, set aside unless the directory is only read, and the next choice
        taken.

        Raises:
            UsageError: there is no such checkpoint.
            RunError: all choices are damaged, or belong to another network.
        """
        choices = self.candidates(which)
        for i, step in enumerate(choices):
            try:
                return self._read(step, like)
            except DamagedError as error:
                if i + 1 == len(choices):
                    raise RunError(f"{error}; there is no other to go back to") from error
                aside = "" if self._read_only else f", set aside as {self._set_aside(step)}"
                _logger.warning("%s%s; taking the checkpoint of step %d", error, aside, choices[i + 1])
        raise AssertionError("candidates returns at least one step")

    def restore_before(self, step: int, like: TrainState) -> Saved | None:
        """Returns the latest checkpoint before a step that is intact; None if there is none.

        Raises:
            RunError: one belongs to another network.
        """
        for earlier in reversed([s for s in self.steps() if s < step]):
            try:
                return self._read(earlier, like)
            except DamagedError as error:
                _logger.warning("%s; taking an earlier one", error)
        return None

    def _read(self, step: int, like: TrainState) -> Saved:
        """Reads and verifies one checkpoint.

        Raises:
            DamagedError: its files are not what was saved.
            RunError: it is another network's.
        """
        path = self._directory / str(step)
        try:
            items = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))
            record = Record.from_json(items["record"])
            if record.step != step:
                raise ValueError(f"it was saved as that of step {record.step}")
        except Exception as error:
            raise DamagedError(f"{path}: the checkpoint is damaged: {_first_line(error)}") from error
        if different := record.mismatch(like):
            raise RunError(f"{path}: the checkpoint cannot be restored, it is another network's: {different}")
        target = ocp.args.StandardRestore(like)
        try:
            state = cast(TrainState, self._manager.restore(step, args=ocp.args.Composite(state=target))["state"])
        except Exception as error:
            raise DamagedError(f"{path}: the checkpoint is damaged: {_first_line(error)}") from error
        if changed := record.changed(state):
            raise DamagedError(f"{path}: the checkpoint is damaged: {changed} is not what was saved")
        return Saved(step, state, record.log)

    def _set_aside(self, step: int) -> Path:
        """Moves a damaged checkpoint out of the way of the one that will be saved under its step again."""
        kept = self._directory.parent / "damaged"
        free = next(p for i in range(1000) if not (p := kept / (f"{step}-{i}" if i else str(step))).exists())
        processes.barrier()

        def move() -> None:
            kept.mkdir(exist_ok=True)
            (self._directory / str(step)).rename(free)

        processes.on_first(move)
        self._manager.reload()
        return free


@dataclasses.dataclass
class _LatestAndBest:
    """Keeps the latest checkpoints and the best by validation accuracy, of equals the later."""

    accuracies: Mapping[int, float]
    keep: int

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Says for each checkpoint, given in rising order, whether it stays."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        known = [step for step in steps if step in self.accuracies]
        best = max(known, key=lambda step: (self.accuracies[step], step), default=None)
        return [step in steps[-self.keep :] or step == best for step in steps]


def _first_line(error: Exception) -> str:
    lines = str(error).partition(" See full TensorStore details")[0].strip().rstrip(".").splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
