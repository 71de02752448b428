"""Dropout and batch norm as functions of the whole batch, however it is divided among devices and micro-batches.

Linen's modules know only the part of a batch that they are handed. Interceptors, which see every call of a
module while a model is applied, tell them the rest: so any model, also one that its user wrote with stock
Linen modules, computes the same in every mode of `convjax.train.parallel`.
"""

import contextlib
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax


def intercepted(
    ids: jax.Array, axis_name: str | None, frozen: Collection[str] = ()
) -> contextlib.AbstractContextManager[None]:
    """Returns the context in which to apply a model to a part of a batch.

    Args:
        ids: `[N]`, which examples the part holds: a dropout mask is drawn for each by itself, from the
            module's key folded with its id.
        axis_name: mapped axis over which batch norms take their statistics; None for those of the part alone.
        frozen: paths of the batch norms that normalise by their stored statistics.
    """

    def intercept(
        call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        if context.method_name == "__call__":
            if isinstance(module, nn.BatchNorm) and "/".join(module.path) in frozen:
                args, kwargs = _on_stored_statistics(module, args, kwargs)
            elif isinstance(module, nn.BatchNorm) and module.axis_name is None:
                _set(module, "axis_name", axis_name)
            if isinstance(module, nn.Dropout) and _draws(module, ids, *args, **kwargs):
                return _dropout(module, ids, call, *args)
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


def _set(module: nn.Module, field: str, value: object) -> None:
    # Linen makes a module anew for each application, and freezes it.
    object.__setattr__(module, field, value)


def _on_stored_statistics(
    module: nn.BatchNorm, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns with what to call a batch norm so that it normalises by its stored statistics."""
    # Linen takes this flag from the module or from the call, not from both.
    if module.use_running_average is not None:
        _set(module, "use_running_average", True)
        return args, kwargs
    return args[:1], {**kwargs, "use_running_average": True}


def _draws(
    module: nn.Dropout, ids: jax.Array, inputs: jax.Array, deterministic: bool | None = None, rng: Any = None
) -> bool:
    """Says whether a dropout draws masks of its own for the examples of the batch."""
    on = not nn.merge_param("deterministic", module.deterministic, deterministic) and 0 < module.rate < 1
    shared = {dim % inputs.ndim for dim in module.broadcast_dims}
    return on and rng is None and inputs.shape[0] == len(ids) and 0 not in shared


def _dropout(module: nn.Dropout, ids: jax.Array, call: Callable[..., Any], inputs: jax.Array, *_: Any) -> Any:
    """Calls a dropout example by example, each with a key of its own."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(module.make_rng(module.rng_collection), ids)
    # Linen takes this flag from the module or from the call, not from both.
    flag = {"deterministic": False} if module.deterministic is None else {}
    return jax.vmap(lambda example, key: call(example[None], **flag, rng=key)[0])(inputs, keys)
