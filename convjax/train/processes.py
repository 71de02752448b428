"""The processes of a run: how they find each other, and what they do and decide together."""

import os
import signal
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from convjax.errors import RunError, UsageError
from convjax.train.config import ParallelConfig


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


def on_first(action: Callable[[], object]) -> None:
    """Does something in the first process while the others wait; where it fails, all fail.

    Raises:
        RunError: in the others, if it failed in the first, which raises what the action raised.
    """
    failed: Exception | None = None
    if is_first():
        try:
            action()
        except Exception as error:  # raised again below, once the others know
            failed = error
    if not is_alone():
        fine = multihost_utils.broadcast_one_to_all(np.int32(failed is None))
        if not fine and failed is None:
            raise RunError("the first process has failed, its message says why")
    if failed is not None:
        raise failed


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
