"""What a run can fail of, in words that say what to do."""

import contextlib
import math
from collections.abc import Iterator

import jax
import numpy as np
from numpy.typing import NDArray

from convjax.errors import RunError, UsageError
from convjax.train import processes
from convjax.train.interrupts import Interrupted
from convjax.train.peers import GOES_ON
from convjax.train.run import Run

_IDS_SHOWN = 512
"""Examples of a batch that an error names."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns what the runtime raises into errors that say what to do: too little memory, another process that is gone.

    Raises:
        RunError: one of these.
    """
    try:
        yield
    except Exception as error:
        # A save may have wrapped what a collective operation inside of it raised.
        cause = _runtime_error(error)
        if cause is None:
            raise
        line = str(cause).splitlines()[0]
        if "RESOURCE_EXHAUSTED" in line:
            raise RunError(
                f"out of memory ({line}): lower train.batch_size, raise train.accumulate, or set model.remat"
            ) from error
        if processes.is_alone():
            raise
        raise RunError(f"another process of the run has failed or been killed ({line}); {GOES_ON}") from error


@contextlib.contextmanager
def noted(run: Run) -> Iterator[None]:
    """Writes down, where a run's directory can be written, what the run has failed of, for `convjax runs` to tell."""
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, RunError | UsageError) else f"{type(error).__name__}: {error}"
        if processes.is_first():
            with contextlib.suppress(RunError):
                run.write(run.failure.name, {"error": reason})
        raise


def _runtime_error(error: BaseException | None) -> jax.errors.JaxRuntimeError | None:
    """Returns the runtime's error that an error is, or comes from; None if there is none."""
    while error is not None and not isinstance(error, jax.errors.JaxRuntimeError):
        error = error.__cause__
    return error


def nonfinite(step: int, loss: float, gradient_norm: float) -> str:
    """Says what of a step is not finite: its loss, or else the norm of its gradients."""
    if math.isfinite(loss):
        return f"the gradient norm of step {step} is {gradient_norm}"
    return f"the loss of step {step} is {loss}"


def diverged(found: str, step: int, ids: NDArray[np.int64], *, skipped: int | None, limit: int) -> RunError:
    """The error of a run that meets a loss or gradient that is not finite.

    Args:
        found: what `nonfinite` says.
        step: where.
        ids: the examples of its batch.
        skipped: updates that would be left out by now; None where none may.
        limit: how many may.
    """
    shown = " ".join(map(str, ids[:_IDS_SHOWN])) + (f" ... ({len(ids)} in all)" if len(ids) > _IDS_SHOWN else "")
    what = (
        "the training has diverged, or an example is broken: lower optim.lr, lengthen optim.warmup, set "
        "optim.clip_norm, or leave such updates out by --on-nonfinite skip; "
        f"convjax replay RUN --step {step} shows the batch"
        if skipped is None
        else f"the training has diverged: {skipped} updates would be left out, train.nonfinite_limit is {limit}"
    )
    return RunError(f"{found}: {what}. The state was not changed. Examples of the batch: {shown}")
