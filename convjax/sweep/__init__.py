"""Sweeps: from what varies to runs, whoever starts them, and to what they show."""

from typing import TYPE_CHECKING

__all__ = ["compare"]

if TYPE_CHECKING:
    from convjax.sweep.comparison import compare


def __getattr__(name: str) -> object:
    """Imports what the package offers only when it is asked for: the commands' help need not wait for JAX."""
    if name == "compare":
        from convjax.sweep.comparison import compare

        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
