"""The processes of a run: how they find each other, and what they do and decide together."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from convjax.digest import digest
from convjax.errors import RunError, UsageError
from convjax.train.config import ParallelConfig

T = TypeVar("T")


def start(config: ParallelConfig) -> None:
    """Joins the processes of a run, where there are several; to be called before any computation.

    Raises:
        UsageError: they do not find each other.
    """
    if jax.distributed.is_initialized():
        return
    # Else JAX itself ends a process whose peer has died, by an abort with a stack trace; see `convjax.train.peers`.
    jax.config.update("jax_enable_recoverability", True)
    # It would take SIGTERM from `convjax.train.interrupts`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if config.coordinator is not None:
            jax.distributed.initialize(config.coordinator, config.processes, config.process_id)
        elif _told_by_environment():
            jax.distributed.initialize()  # JAX reads the rest from the environment
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"parallel.coordinator is {config.coordinator}: the processes do not find each other: {error}"
        ) from error


def _told_by_environment() -> bool:
    """Says whether SLURM (in a step, as srun starts one), Open MPI or a Cloud TPU has started several processes."""
    told = os.environ
    slurm = "SLURM_STEP_NODELIST" in told and "SLURM_PROCID" in told and int(told.get("SLURM_NTASKS", 1)) > 1
    return slurm or int(told.get("OMPI_COMM_WORLD_SIZE", 1)) > 1 or "," in told.get("TPU_WORKER_HOSTNAMES", "")


def is_alone() -> bool:
    """Says whether the run has but this process."""
    return jax.process_count() == 1


def is_first() -> bool:
    """Says whether this is the process that writes and prints."""
    return jax.process_index() == 0


def barrier() -> None:
    """Waits until all processes are here."""
    if not is_alone():
        multihost_utils.sync_global_devices("convjax")


def everywhere(action: Callable[[], T]) -> T:
    """Does something in all processes; where it fails in one, it fails in all.

    Raises:
        RunError: it failed in another process. In that one, what the action raised is raised.
    """
    if is_alone():
        return action()
    failed: Exception | None = None
    try:
        result = action()
    except Exception as error:  # raised again below, once the others know
        failed = error
    broken = np.flatnonzero(multihost_utils.process_allgather(np.int32(failed is not None)))
    if broken.size:
        _part()
        raise failed or RunError(f"process {broken[0]} of the run has failed, its message says why")
    return result


def on_first(action: Callable[[], object]) -> None:
    """Does something in the first process while the others wait; where it fails, all fail.

    Raises:
        RunError: in the others, if it failed in the first, which raises what the action raised.
    """
    everywhere(lambda: action() if is_first() else None)


def require_same(contents: Mapping[str, str]) -> None:
    """Makes sure that all processes were given the same.

    Args:
        contents: name of each thing, and what stands for its content.

    Raises:
        UsageError: they were not; in all processes.
    """
    if is_alone():
        return
    own = np.frombuffer(bytes.fromhex("".join(digest(content.encode()) for content in contents.values())), np.uint8)
    all_digests = multihost_utils.process_allgather(own).reshape(jax.process_count(), len(contents), -1)
    for name, digests in zip(contents, all_digests.swapaxes(0, 1), strict=True):
        if other := np.flatnonzero((digests != digests[0]).any(axis=1)).tolist():
            _part()
            raise UsageError(
                f"the {name} of process {other[0]} is not that of process 0: all processes of a run must be given "
                "the same experiment, flags and data"
            )


def _part() -> None:
    """Leaves the other processes, all of which do so now; the first one last.

    JAX aborts whoever is still there when the first one, which holds them together, has gone.
    """
    if is_first():
        time.sleep(3)
    jax.distributed.shutdown()


def agreed(received: signal.Signals | None, step: int | None) -> signal.Signals | None:
    """Returns the signal that all processes are to stop for after a step, if one of them received any.

    Several processes ask each other after every tenth step only, or where `step` is None: each time costs the
    overlap of a step with the host's work.
    """
    if is_alone():
        return received
    if step is not None and step % 10:
        return None
    number = int(np.max(multihost_utils.process_allgather(np.int32(received or 0))))
    return signal.Signals(number) if number else None
