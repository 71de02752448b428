"""What convjax and stock Linen have in common: JAX's way to wait, and to tell of memory."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from peers.cases import Case
from peers.side import Prepared


def prepared(case: Case, advance: Callable[[], Any], ask: Callable[[], Any], params: Any) -> Prepared:
    """Returns a case whose training steps and inferences are these."""
    return Prepared(
        step=advance if case.task == "train" else ask,
        wait=lambda computed: float(np.asarray(jax.tree.leaves(jax.block_until_ready(computed))[0]).flat[0]),
        parameters=sum(p.size for p in jax.tree.leaves(params)),
        peak=_peak if case.device == "gpu" else None,
    )


def _peak() -> int:
    return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]
