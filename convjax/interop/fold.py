"""Batch norms merged into the convolutions before them, for inference."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr, Var

from convjax.errors import UsageError
from convjax.layers import Conv
from convjax.models import Model

Path: TypeAlias = tuple[str, ...]

_LINEAR = (Conv, nn.Conv, nn.Dense)


@dataclasses.dataclass(frozen=True)
class _Norm:
    """A batch norm of a network.

    Attributes:
        epsilon: what it adds to the variance.
        before: the convolution or linear layer whose output is its input and nothing else's, if there is one.
    """

    epsilon: float
    before: Path | None


def fold(model: Model, variables: Mapping[str, Any], image: tuple[int, int, int]) -> tuple[Model, dict[str, Any]]:
    """Returns a network without batch statistics that has the same logits in evaluation mode up to rounding.

    A batch norm in evaluation mode is `x * s + (bias - mean * s)` with `s = scale / sqrt(var + epsilon)`. Where its
    input is the output of a convolution or linear layer that nothing else reads, `s` is merged into the kernel, and
    what is left is the bias that stands in a norm's place where `norm` is "none". Elsewhere the norm becomes a product
    and a sum, without the root and the division: before an activation that follows the sum or the concatenation of
    several outputs (ResNetV2's and DenseNet's blocks), and after a pooling (AirBench).

    Args:
        model: with `norm="batch"`.
        variables: its parameters and batch statistics.
        image: (height, width, channels) of images that the model takes; the result does not depend on it.

    Returns:
        The model with `norm="none"`, and its parameters. A norm that was not merged has an additional parameter
        `scale`, which `init` does not make. What training alone runs (GoogLeNet's auxiliary classifiers) has no use.

    Raises:
        UsageError: the model has no batch norms, or some that its field `norm` does not rule.
    """
    if model.norm != "batch":
        raise UsageError(f"model.norm is {model.norm!r}: only norms of kind 'batch' can be folded")
    params = flax.traverse_util.flatten_dict(jax.tree.map(np.asarray, dict(variables["params"])))
    statistics = flax.traverse_util.flatten_dict(jax.tree.map(np.asarray, dict(variables["batch_stats"])))
    norms = _norms(model, variables, image)
    for path, norm in norms.items():
        deviation = np.sqrt(statistics[*path, "var"].astype(np.float64) + norm.epsilon)
        scale = params.pop((*path, "scale"), np.float32(1)) / deviation
        shift = -statistics[*path, "mean"] * scale
        if (*path, "bias") in params:
            shift = params[*path, "bias"] + shift
        if norm.before is None:
            params[*path, "scale"] = scale
        else:
            kernel, bias = (*norm.before, "kernel"), (*norm.before, "bias")
            params[kernel] = params[kernel] * scale
            shift = shift + params.pop(bias, np.float32(0)) * scale
        params[*path, "bias"] = shift
    # A scale that starts at zero needs a norm; nothing starts any more.
    fields: dict[str, Any] = {"zero_init": False} if hasattr(model, "zero_init") else {}
    folded = model.clone(norm="none", **fields)
    made: Any = jax.eval_shape(lambda: folded.init(jax.random.key(0), jnp.zeros((1, *image)), train=False))
    if "batch_stats" in made:
        raise UsageError("the model has batch norms that do not come from its field `norm`: they cannot be folded")
    kept = {(*path, "scale") for path, norm in norms.items() if norm.before is None}
    # A bias that has moved to the norm's place leaves zeros where the folded network still has one.
    shapes = flax.traverse_util.flatten_dict(dict(made["params"]))
    merged = {path: np.float32(params.get(path, np.zeros(leaf.shape))) for path, leaf in shapes.items()}
    merged |= {path: np.float32(params[path]) for path in kept}
    return folded, {"params": flax.traverse_util.unflatten_dict(merged)}


def _norms(model: Model, variables: Mapping[str, Any], image: tuple[int, int, int]) -> dict[Path, _Norm]:
    """Returns the batch norms of a network by path."""
    outputs: list[tuple[Any, Path]] = []
    inputs: list[tuple[Any, nn.BatchNorm]] = []

    def watch(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if context.method_name == "__call__" and isinstance(module, nn.BatchNorm):
            inputs.append((args[0], module))
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(module, _LINEAR):
            output = checkpoint_name(output, "/".join(module.path))
            outputs.append((output, module.path))
        return output

    def evaluate(variables: Any, images: jax.Array) -> Any:
        with nn.intercept_methods(watch):
            return model.apply(variables, images, train=False)

    jaxpr = jax.make_jaxpr(evaluate)(variables, jax.ShapeDtypeStruct((1, *image), jnp.float32)).jaxpr
    readers = dict(_readers(jaxpr))
    calls = Counter(path for _, path in outputs) + Counter(module.path for _, module in inputs)
    found = {}
    for x, module in inputs:
        before = next((path for output, path in outputs if output is x), None)
        if before is not None and (calls[before], calls[module.path], readers["/".join(before)]) != (1, 1, 1):
            before = None
        found[module.path] = _Norm(module.epsilon, before)
    return found


def _readers(jaxpr: Jaxpr) -> Iterator[tuple[str, int]]:
    """Goes through the named values of a jaxpr, and of those it calls, with how often each is read."""
    uses = Counter(v for e in jaxpr.eqns for v in e.invars if isinstance(v, Var))
    uses.update(v for v in jaxpr.outvars if isinstance(v, Var))
    for equation in jaxpr.eqns:
        if equation.primitive.name == "name":
            yield equation.params["name"], uses[equation.outvars[0]]
        for value in equation.params.values():
            if isinstance(value, ClosedJaxpr | Jaxpr):
                yield from _readers(value.jaxpr if isinstance(value, ClosedJaxpr) else value)
