"""convjax: functional ConvNets in JAX and Flax, for experiments that can be trusted.

Images are arrays `[N, H, W, C]` (NHWC), kernels `[kernel_h, kernel_w, C_in / groups, C_out]` (HWIO).
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["features"]

if TYPE_CHECKING:
    from convjax.inspect.features import features


def __getattr__(name: str) -> object:
    """Imports what the package offers only when it is asked for: `convjax --help` need not wait for JAX."""
    if name == "features":
        from convjax.inspect.features import features

        return features
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
