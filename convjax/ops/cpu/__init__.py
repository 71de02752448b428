"""Fast convolutions and pooling on CPUs, switched on around a computation; importing this changes nothing.

What is switched is how some primitives of JAX are lowered for CPUs: `conv_general_dilated`, sums and maxima of
windows, the gradient of maximum pooling, sums of all pixels of a channel, and concatenation. So everything
built on them, stock Flax too, is served, and every transformation works as before: differentiation in both modes, vmap,
remat and scan act before lowering. Where a kernel cannot serve, stock XLA does.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax._src.sharding_impls import ShardingContext, SPMDAxisContext
from jax.interpreters import mlir

from convjax.errors import UsageError
from convjax.ops import channels, epilogue
from convjax.ops.cpu import native, pool, pure
from convjax.ops.cpu.operations import Convolution, Task, recognise
from convjax.ops.epilogue_search import Step

Kernels: TypeAlias = Literal["off", "pure", "native"]
"""off: XLA's own; pure: rewritten in JAX; native: by the extension where it serves, else as pure."""

VARIABLE = "CONVJAX_CPU_KERNELS"
_FEW = 2**16
"""Numbers below which sums of channels are left to XLA: they are taken before other threads have woken up."""

_active: Kernels = "off"


def active() -> Kernels:
    """Returns the kernels that what is compiled now would use."""
    return _active


def chosen() -> Kernels:
    """Returns the kernels that the environment asks for; else the fastest there are.

    Raises:
        UsageError: $CONVJAX_CPU_KERNELS names none, or those that are not available.
    """
    value = os.environ.get(VARIABLE)
    if value is None:
        return "pure" if native.unavailable() else "native"
    for kernels in get_args(Kernels):
        if value == kernels:
            if kernels == "native" and (reason := native.unavailable()):
                raise UsageError(f"${VARIABLE} is native, but the extension is {reason}")
            return kernels
    raise UsageError(f"${VARIABLE} is {value!r}: it must be one of {', '.join(get_args(Kernels))}")


@contextlib.contextmanager
def switched_on(kernels: Kernels | None = None) -> Iterator[None]:
    """Lets what is compiled inside, for CPUs, use these kernels; those `chosen` unless given.

    Inside of another such context nothing changes.
    """
    global _active
    kernels = chosen() if kernels is None else kernels
    if _active != "off" or kernels == "off":
        yield
        return
    if kernels == "native" and (reason := native.unavailable()):
        raise UsageError(f"the native kernels are {reason}")
    rules: dict[Any, Callable[[Any], Any]] = {
        lax.conv_general_dilated_p: lambda stock: _convolution_rule(kernels, stock),
        epilogue.followed_p: lambda stock: _epilogue_rule(kernels, stock),
        lax.reduce_window_max_p: lambda stock: _pool_rule(pool.maxima, stock),
        lax.reduce_window_sum_p: lambda stock: _pool_rule(pool.sums, stock),
        lax.select_and_scatter_add_p: lambda stock: _max_pool_gradient_rule(kernels, stock),
        lax.concatenate_p: _concatenation_rule,
        lax.reduce_sum_p: lambda stock: _sum_rule(kernels, stock),
        channels.moments_p: lambda stock: _channel_rule(kernels, native.moments, 1, stock),
        channels.sums_p: lambda stock: _channel_rule(kernels, native.channel_sums, 2, stock),
    }
    stock = {primitive: _rule(primitive) for primitive in rules}
    _active = kernels
    try:
        for primitive, rule in rules.items():
            _register(primitive, rule(stock[primitive]))
        yield
    finally:
        for primitive, rule in stock.items():
            _register(primitive, rule)
        _active = "off"


def _rule(primitive: Any) -> Any:
    # Of those that are lowered alike everywhere there is only the common rule.
    return (mlir._platform_specific_lowerings["cpu"].get(primitive) or mlir._lowerings[primitive]).rule


def _register(primitive: Any, rule: Any) -> None:
    mlir.register_lowering(primitive, rule, platform="cpu")


def _convolution_rule(kernels: Kernels, stock: Any) -> Any:
    def lower(context: Any, lhs: Any, rhs: Any, **params: Any) -> Any:
        left, right = context.avals_in
        convolution = recognise(left, right, context.avals_out[0], params)
        computed = None if convolution is None else _computed(kernels, convolution, context)
        if computed is None:
            return stock(context, lhs, rhs, **params)
        return mlir.lower_fun(computed, multiple_results=False)(context, lhs, rhs)

    return lower


def _computed(kernels: Kernels, convolution: Convolution, context: Any) -> pure.Rule | None:
    dtype = context.avals_in[0].dtype
    precision = native.computed_in(convolution, dtype) if _serves_native(kernels, context) else None
    if precision is not None:
        return lambda lhs, rhs: native.convolve(convolution, precision, lhs, rhs)
    return pure.rule(convolution, dtype, _divided(context))


def _epilogue_rule(kernels: Kernels, stock: Any) -> Any:
    def lower(context: Any, *operands: Any, params: Any, steps: tuple[Step, ...]) -> Any:
        left, right = context.avals_in[:2]
        convolution = recognise(left, right, context.avals_out[0], dict(params))
        if convolution is None or convolution.task is not Task.FORWARD or not _serves_native(kernels, context):
            return stock(context, *operands, params=params, steps=steps)
        precision = native.computed_in(convolution, left.dtype, steps)
        if precision is None:
            return stock(context, *operands, params=params, steps=steps)
        computed = functools.partial(native.convolve, convolution, precision, steps=steps)
        return mlir.lower_fun(computed, multiple_results=False)(context, *operands)

    return lower


def _serves_native(kernels: Kernels, context: Any) -> bool:
    """Says whether foreign functions may be called: XLA cannot divide one."""
    return kernels == "native" and not _divided(context)


def _divided(context: Any) -> bool:
    """Says whether XLA divides the program among several devices by itself."""
    axes = context.module_context.axis_context
    if isinstance(axes, SPMDAxisContext):
        return bool(axes.manual_axes != frozenset(axes.mesh.axis_names))
    return isinstance(axes, ShardingContext) and axes.num_devices > 1


def _pool_rule(pooled: Callable[[jax.Array, dict[str, Any]], jax.Array], stock: Any) -> Any:
    def lower(context: Any, operand: Any, **params: Any) -> Any:
        if not pool.serves(context.avals_in[0], params):
            return stock(context, operand, **params)
        return mlir.lower_fun(lambda x: pooled(x, params), multiple_results=False)(context, operand)

    return lower


def _max_pool_gradient_rule(kernels: Kernels, stock: Any) -> Any:
    def lower(context: Any, source: Any, operand: Any, **params: Any) -> Any:
        if not pool.serves_gradient(context.avals_in[1], params):
            return stock(context, source, operand, **params)
        gradient = native.max_pool_gradient if _serves_native(kernels, context) else pool.gradient
        computed = mlir.lower_fun(lambda dy, x: gradient(dy, x, params), multiple_results=False)
        return computed(context, source, operand)

    return lower


def _sum_rule(kernels: Kernels, stock: Any) -> Any:
    """Returns the rule of sums: over all pixels, as a bias's gradient is, XLA adds bfloat16 number by number."""

    def lower(context: Any, operand: Any, *, axes: tuple[int, ...], **params: Any) -> Any:
        array = context.avals_in[0]
        pixels = array.ndim == 4 and tuple(axes) == (0, 1, 2) and array.dtype in (jnp.float32, jnp.bfloat16)
        if not pixels or array.size < _FEW or not _serves_native(kernels, context):
            return stock(context, operand, axes=axes, **params)
        computed = mlir.lower_fun(lambda x: native.totals(x).astype(x.dtype), multiple_results=False)
        return computed(context, operand)

    return lower


def _concatenation_rule(stock: Any) -> Any:
    """Returns the rule of concatenation: XLA converts bfloat16 to float32 for it, and back."""

    def concatenated(*operands: jax.Array, dimension: int) -> jax.Array:
        bits = [lax.bitcast_convert_type(x, jnp.uint16) for x in operands]
        return lax.bitcast_convert_type(lax.concatenate(bits, dimension), jnp.bfloat16)

    def lower(context: Any, *operands: Any, dimension: int) -> Any:
        if context.avals_out[0].dtype != jnp.bfloat16:
            return stock(context, *operands, dimension=dimension)
        computed = functools.partial(concatenated, dimension=dimension)
        return mlir.lower_fun(computed, multiple_results=False)(context, *operands)

    return lower


def _channel_rule(kernels: Kernels, sums: Callable[..., Any], arrays: int, stock: Any) -> Any:
    """Returns the rule of a primitive whose first operands are arrays, and the others a channel's numbers."""

    def lower(context: Any, *operands: Any) -> Any:
        array = context.avals_in[0]
        if array.dtype != jnp.float32 or array.size < _FEW or not _serves_native(kernels, context):
            return stock(context, *operands)
        # The kernels widen bfloat16 themselves: what XLA would write as float32 for them is read where it comes from.
        halves = [_widened(operand) for operand in operands[:arrays]]
        if all(half is not None for half in halves):
            operands = (*halves, *operands[arrays:])
            narrow = [aval.update(dtype=jnp.dtype(jnp.bfloat16)) for aval in context.avals_in[:arrays]]
            context = context.replace(avals_in=[*narrow, *context.avals_in[arrays:]])
        return mlir.lower_fun(sums, multiple_results=True)(context, *operands)

    return lower


def _widened(operand: Any) -> Any:
    """Returns the bfloat16 that a float32 operand is a conversion of; None if it is none."""
    made = operand.owner
    if getattr(made, "name", None) != "stablehlo.convert":
        return None
    narrow = made.operands[0]
    return narrow if str(narrow.type.element_type) == "bf16" else None
