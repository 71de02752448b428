"""A network layer by layer: what each returns, holds and computes."""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Jaxpr, JaxprEqn

from convjax.errors import UsageError, model_error
from convjax.inspect import count

_SCOPE = "inside:"
_INSIDE = re.compile(f"{_SCOPE}([^/()]*)")
_OUTPUT = "output:"
_SEPARATOR = "|"
"""Between the names of a module's path within a scope, where a slash would end the scope's name."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A module, with what is its own and not that of the modules inside of it.

    Attributes:
        path: names of the modules around it and its own, as `stage1_block1/conv1`; empty for the model.
        kind: name of its class; empty where the module is never called in evaluation mode.
        output: shape of what it returns, None where that is no single array, or it is never called.
        parameters: number of parameters.
        multiply_accumulates: of convolutions and matrix products, for the whole batch.
        activation_bytes: size of the arrays that it returns, but for those that a module inside of it returned.
    """

    path: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int
    multiply_accumulates: int
    activation_bytes: int

    @property
    def depth(self) -> int:
        """Number of names in the path; 0 for the model."""
        return self.path.count("/") + 1 if self.path else 0


def layers(model: nn.Module, image: tuple[int, int, int], batch: int = 1) -> list[Layer]:
    """Returns the modules of a model in evaluation mode, the model first, in the order of their first calls.

    Parameters, multiply-accumulates and bytes of activations sum to those of the whole model: what is computed
    by a scan counts as often as it runs, what is computed again for a backward pass once.

    Args:
        model: called as `model(images, train=...)`.
        image: (height, width, channels).
        batch: number of images.

    Raises:
        UsageError: the model refuses images of this size.
    """
    kinds: dict[str, str] = {}
    try:
        variables = count.shapes(model, image)
        with nn.intercept_methods(naming(kinds)), nn.intercept_methods(_marking_returns):
            images = jax.ShapeDtypeStruct((batch, *image), jnp.float32)
            jaxpr = jax.make_jaxpr(count.forward(model))(variables, images).jaxpr
    except UsageError:
        raise
    except Exception as error:  # whatever the model's author, or its fields, got wrong
        raise model_error(error, image) from error

    parameters = _parameters(variables.get("params", {}))
    computed = _computed(jaxpr)
    return [
        Layer(
            path=path,
            kind=kinds.get(path, ""),
            output=next(iter(computed.outputs[path])) if len(computed.outputs[path]) == 1 else None,
            parameters=parameters.get(path, 0),
            multiply_accumulates=computed.products[path],
            activation_bytes=computed.sizes[path],
        )
        for path in dict.fromkeys(("", *kinds, *parameters))
    ]


def _parameters(params: Any) -> dict[str, int]:
    """Returns the number of parameters that each module holds itself, by its path."""
    held: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        owner = jax.tree_util.keystr(path[:-1], simple=True, separator="/")
        names = owner.split("/")
        for i in range(len(names)):  # modules that are never called have their place in the tree, too
            held.setdefault("/".join(names[:i]), 0)
        held[owner] = held.get(owner, 0) + math.prod(leaf.shape)
    return held


class _Computed:
    """What each module does in a jaxpr that the interceptors have written into, by its path."""

    def __init__(self) -> None:
        self.products = defaultdict[str, int](int)
        self.sizes = defaultdict[str, int](int)
        self.outputs = defaultdict[str, set[tuple[int, ...]]](set)


def _computed(jaxpr: Jaxpr) -> _Computed:
    """Returns multiply-accumulates, bytes of new arrays returned, and shapes of outputs, by module."""
    computed = _Computed()
    returned: set[Any] = set()
    for equation, times, scope in count.equations(jaxpr):
        returning = _returning(equation)
        if returning is None:
            computed.products[owner(scope) or ""] += times * count.products(equation)
            continue
        (array,), (marked,) = equation.invars, equation.outvars
        shape: Any = marked.aval
        computed.outputs[returning].add(shape.shape)
        if array not in returned:
            computed.sizes[returning] += times * shape.size * shape.dtype.itemsize
        returned.add(marked)
    return computed


def naming(kinds: dict[str, str]) -> Callable[..., Any]:
    """Returns an interceptor that has each operation's scope name the module that computes it; see `owner`.

    Args:
        kinds: gets the class of each module that is called, by path, in the order of the first calls.
    """

    def name(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        path = "/".join(context.module.path)
        if context.method_name == "__call__":
            kinds.setdefault(path, type(context.module).__name__)
        with jax.named_scope(f"{_SCOPE}{path.replace('/', _SEPARATOR)}"):
            return call(*args, **kwargs)

    return name


def owner(scope: str) -> str | None:
    """Returns the path of the module in whose scope, by `naming`, an operation is; None outside of all modules."""
    inside = _INSIDE.findall(scope)
    return inside[-1].replace(_SEPARATOR, "/") if inside else None


def _marking_returns(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
    """An interceptor that writes into the jaxpr which module returns what."""
    result = call(*args, **kwargs)
    if context.method_name != "__call__":
        return result
    mark = _OUTPUT + "/".join(context.module.path)
    return jax.tree.map(lambda x: checkpoint_name(x, mark) if isinstance(x, jax.Array) else x, result)


def _returning(equation: JaxprEqn) -> str | None:
    """Returns the path of the module that returns this equation's value, None for an equation that computes."""
    name = equation.params.get("name") if equation.primitive.name == "name" else None
    return name.removeprefix(_OUTPUT) if isinstance(name, str) and name.startswith(_OUTPUT) else None


def collapse(every: Sequence[Layer], depth: int) -> list[Layer]:
    """Returns one layer for each module down to a depth, with the numbers of all modules deeper inside of it.

    A module above that depth with others inside of it is left out, unless it holds or computes something itself.
    """
    found = []
    for layer in every:
        prefix = f"{layer.path}/" if layer.path else ""
        inside = [other for other in every if other.path.startswith(prefix) and other is not layer]
        numbers = (layer.parameters, layer.multiply_accumulates, layer.activation_bytes)
        if layer.depth == depth:
            whole = [layer, *inside]
            found.append(
                dataclasses.replace(
                    layer,
                    parameters=sum(x.parameters for x in whole),
                    multiply_accumulates=sum(x.multiply_accumulates for x in whole),
                    activation_bytes=sum(x.activation_bytes for x in whole),
                )
            )
        elif layer.depth < depth and (any(numbers) or not inside):
            found.append(layer)
    return found
