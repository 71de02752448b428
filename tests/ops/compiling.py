"""What tests of kernels share: that there are native ones, and functions compiled anew."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from convjax.ops import cpu
from convjax.ops.cpu import native


def need_native() -> None:
    """Skips the test where the native kernels cannot be used. Continuous integration has them, and must not skip."""
    if reason := native.unavailable():
        if os.environ.get("CI"):
            pytest.fail(f"the native kernels are {reason}")
        pytest.skip(f"the native kernels are {reason}")


def fresh(f: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function compiled for this call alone, and returns NumPy arrays."""
    return jax.tree.map(np.asarray, jax.jit(lambda *given: f(*given))(*arguments))


def require_stocks_integers(kind: cpu.Kernels, f: Callable[..., Any], *arguments: Any) -> None:
    """Requires that kernels compute the very integers that stock XLA computes."""
    if kind == "native":
        need_native()
    expected = fresh(f, *arguments)
    with cpu.switched_on(kind):
        found = fresh(f, *arguments)
    for ours, stock in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(stock).max() < 2**24  # all of which float32 can hold
        np.testing.assert_array_equal(ours, stock)


def lowered(f: Callable[..., Any], *arguments: Any) -> str:
    """Returns the program of a function lowered for this call alone."""
    return str(jax.jit(lambda *given: f(*given)).lower(*arguments).as_text())
