"""Convolutions, by Winograd's algorithm or oneDNN, and sums of channels, by the extension that *.cc are built into."""

import ctypes
import functools
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from convjax.ops.cpu.operations import Convolution, Task

_TARGETS = tuple(f"convjax_{name}" for name in ("convolve", "max_pool_gradient", "moments", "channel_sums", "totals"))


@functools.cache
def unavailable() -> str:
    """Loads the extension and says why it cannot be used; nothing if it can."""
    loaded = _load()
    return loaded if isinstance(loaded, str) else ""


@functools.cache
def _load() -> ctypes.CDLL | str:
    """Returns the extension, its targets registered, or why there is none."""
    name = "_native"
    found = [
        p
        for suffix in importlib.machinery.EXTENSION_SUFFIXES
        if (p := Path(__file__).parent / (name + suffix)).is_file()
    ]
    if not found:
        return "not built: it needs a C++ compiler and the extra `cpu` when convjax is installed"
    library = Path(sys.prefix) / "lib" / "libdnnl.so.3"
    try:
        # The extension leaves oneDNN's symbols open, so that it holds no path of the machine that built it.
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        extension = ctypes.CDLL(str(found[0]))
        handlers = {target: getattr(extension, target) for target in _TARGETS}
    except (OSError, AttributeError) as error:  # the latter where it was built from older sources
        return f"cannot be loaded: {error}"
    for target, handler in handlers.items():
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(handler), platform="cpu")
    extension.convjax_serves.restype = ctypes.c_bool
    numbers, count = ctypes.POINTER(ctypes.c_int64), ctypes.c_size_t
    extension.convjax_serves.argtypes = [numbers, count, numbers, count, ctypes.c_bool]
    return extension


def computed_in(convolution: Convolution, dtype: Any, steps: Sequence[int] = ()) -> Any:
    """Returns the precision that there is a fast way in on this processor: the given one or else float32.

    oneDNN has none in float16, nor in bfloat16 without AVX-512. Converting to float32 and back takes less than what XLA
    does: a grouped convolution takes it seconds in either.

    Args:
        convolution: what is computed.
        dtype: of images and kernel.
        steps: of its epilogue.

    Returns:
        The precision; None where there is none in float32 either.
    """
    return next((wide for wide in (dtype, jnp.float32) if _is_fast(convolution, wide, steps)), None)


def _is_fast(convolution: Convolution, dtype: Any, steps: Sequence[int]) -> bool:
    extension = _load()
    if isinstance(extension, str) or dtype not in (jnp.float32, jnp.bfloat16):
        return False
    alone = convolution.images[3] == 1 and convolution.kernel[:2] == (1, 1) and convolution.stride != (1, 1)
    if alone and convolution.task is Task.BACKWARD_WEIGHTS:
        return False  # oneDNN 3.2 sums other pixels than it should with AVX2
    half = jnp.dtype(dtype) == jnp.bfloat16
    if half and convolution.depthwise and convolution.task is Task.BACKWARD_DATA and convolution.stride != (1, 1):
        return False  # ten times as slow with oneDNN 3.2 as in float32
    arrays = [(ctypes.c_int64 * len(numbers))(*numbers) for numbers in (convolution.numbers(), steps)]
    return bool(extension.convjax_serves(*(part for array in arrays for part in (array, len(array))), half))


def lacks_bfloat16() -> bool:
    """Says whether convolutions of bfloat16 are computed in float32, by a 3 x 3 one of a usual size."""
    size = (1, 8, 8, 16)
    usual = Convolution(
        task=Task.FORWARD,
        groups=1,
        images=size,
        kernel=(3, 3, 16, 16),
        kernel_axes=(0, 1, 2, 3),
        output=size,
        stride=(1, 1),
        dilation=(1, 1),
        low=(1, 1),
        high=(1, 1),
        flipped=False,
    )
    return computed_in(usual, jnp.bfloat16) == jnp.float32


def convolve(
    convolution: Convolution,
    precision: Any,
    lhs: jax.Array,
    rhs: jax.Array,
    *following: jax.Array,
    steps: Sequence[int] = (),
) -> jax.Array:
    """Computes a convolution in the given precision, and returns it in that of its operands.

    Args:
        convolution: what is computed.
        precision: what `computed_in` returned.
        lhs: the left operand of JAX's primitive.
        rhs: the right one.
        following: the operands of the epilogue's steps.
        steps: of its epilogue.
    """
    dtype = lhs.dtype
    lhs, rhs = lhs.astype(precision), rhs.astype(precision)
    following = tuple(x.astype(precision) if x.dtype == dtype else x for x in following)
    images, output = convolution.images, convolution.output
    window = convolution.kernel_axes[:2]
    if convolution.task is Task.BACKWARD_DATA:
        first, second, shape = lax.rev(rhs, window), lhs, images
    else:
        first, second, shape = lhs, rhs, output
    if convolution.task is Task.BACKWARD_WEIGHTS:
        shape = tuple(size for _, size in sorted(zip(convolution.kernel_axes, convolution.kernel, strict=True)))
    result = jax.ShapeDtypeStruct(shape, precision)
    call = jax.ffi.ffi_call("convjax_convolve", result)
    numbers, epilogue = (np.array(values, np.int64) for values in (convolution.numbers(), steps))
    return call(first, second, *following, numbers=numbers, steps=epilogue).astype(dtype)


def max_pool_gradient(dy: jax.Array, x: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Computes what `pool.gradient` does, of any floating-point numbers, added up in float32."""
    dtype = x.dtype
    if dtype != jnp.bfloat16:
        dy, x = dy.astype(jnp.float32), x.astype(jnp.float32)
    before = [low for low, _ in params["padding"][1:3]]
    numbers = np.array([*params["window_dimensions"][1:3], *params["window_strides"][1:3], *before], np.int64)
    call = jax.ffi.ffi_call("convjax_max_pool_gradient", jax.ShapeDtypeStruct(x.shape, x.dtype))
    return call(dy, x, numbers=numbers).astype(dtype)


def moments(x: jax.Array) -> Any:
    """Computes what `convjax.ops.channels.moments` does, of float32 or bfloat16."""
    a_channel = jax.ShapeDtypeStruct(x.shape[-1:], jnp.float32)
    return jax.ffi.ffi_call("convjax_moments", (a_channel, a_channel))(x)


def totals(x: jax.Array) -> jax.Array:
    """Computes the sum of each channel over all pixels, `[..., C]` to `[C]`, of float32 or bfloat16, in float32."""
    return jax.ffi.ffi_call("convjax_totals", jax.ShapeDtypeStruct(x.shape[-1:], jnp.float32))(x)


def channel_sums(dy: jax.Array, x: jax.Array, centre: jax.Array) -> Any:
    """Computes what `convjax.ops.channels.sums` does, of float32 or bfloat16; `centre` is float32."""
    a_channel = jax.ShapeDtypeStruct(x.shape[-1:], jnp.float32)
    return jax.ffi.ffi_call("convjax_channel_sums", (a_channel, a_channel))(dy, x, centre)
