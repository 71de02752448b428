"""What a network computes on its way: the outputs of its stages and blocks by name."""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax.errors import UsageError, nearest

_PART = re.compile(r"(\w*\d)_(?:block|layer)\d+")
_COLLECTION = "intermediates"
"""Where Flax puts what it captures."""


def features(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array, *, depth: int = 1
) -> "OrderedDict[str, Any]":
    """Returns the outputs of a network's parts by name, in evaluation mode; the network itself need not be changed.

    A part is a submodule that the model calls; its name is its path in the parameter tree: `stem`, `stage2_block3`,
    `head`, and `stage2_block3/conv1` at depth 2. Parts without parameters have the name that Flax gives them. Of a
    submodule that is called several times the later outputs are called `name#2`, `name#3`, and so on.

    Where parts are called `NAME_block1`, `NAME_block2` ... or `NAME_layer1` ... and NAME ends with a digit, the output
    of the last of them is under `NAME` too (`stage2`), unless the model has a part of that name. What a model does
    between its parts (a pooling, an activation) is no part: it is in no output before that of the next one.

    May be called inside of `jax.jit`.

    Args:
        model: any Linen module that is called as `model(images, train=...)`, a user's own as well.
        variables: its variables.
        images: normalised images `[N, H, W, C]`.
        depth: how deep to look: 1 for the model's own submodules, 2 for theirs as well, and so on.

    Returns:
        The outputs in the order in which they are computed, usually arrays `[N, h, w, c]`; a stage follows its last
        block. The last one is usually the logits.

    Raises:
        UsageError: `depth` is below 1.
    """
    if depth < 1:
        raise UsageError(f"depth is {depth}: it must be at least 1")
    outputs = _called(model, variables, images, depth)
    stages = {block: stage for stage, block in stage_ends(outputs).items()}
    named: OrderedDict[str, Any] = OrderedDict()  # jit keeps its order, and sorts a plain dict
    for name, output in outputs.items():
        named[name] = output
        if name in stages:
            named[stages[name]] = output
    return named


def output_of(model: nn.Module, variables: Mapping[str, Any], images: jax.Array, part: str) -> Any:
    """Returns the output of one part, named as in `features` at whatever depth; the arguments are those there.

    Raises:
        UsageError: the model has no such part.
    """
    found = features(model, variables, images, depth=_depth(part))
    if part not in found:
        raise _unknown(part, found)
    return found[part]


def perturbed(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array, part: str, change: jax.Array
) -> jax.Array:
    """Returns the float32 logits `[N, K]` of images, in evaluation mode, with `change` added to a part's output.

    So the gradient by `change`, where that is zero, is the gradient by the part's output.

    Args:
        model: called as `model(images, train=...)`, and as it is.
        variables: its variables.
        images: normalised images `[N, H, W, C]`.
        part: named as in `features`, at whatever depth.
        change: of the shape of the part's output.

    Raises:
        UsageError: the model has no such part.
    """
    outputs = jax.eval_shape(lambda v, x: _called(model, v, x, _depth(part)), dict(variables), images)
    called = stage_ends(outputs).get(part, part)
    if called not in outputs:
        raise _unknown(part, outputs)
    path, _, number = called.partition("#")
    calls = 0

    def changing(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        nonlocal calls
        output = call(*args, **kwargs)
        if context.method_name != "__call__" or "/".join(context.module.path) != path:
            return output
        calls += 1
        return output + change if calls == int(number or 1) else output

    with nn.intercept_methods(changing):
        return jnp.asarray(model.apply(_without_captured(variables), images, train=False), jnp.float32)


def stage_ends(names: Iterable[str]) -> dict[str, str]:
    """Returns the last block of each stage, for names of parts in their order; none for a stage that is itself one."""
    names = list(names)
    ends = {match[1]: name for name in names if (match := _PART.fullmatch(name))}
    return {stage: block for stage, block in ends.items() if stage not in names}


def main_parts(names: Iterable[str]) -> list[str]:
    """Returns the names without those of blocks whose stage is among them."""
    names = list(names)
    return [name for name in names if not ((match := _PART.fullmatch(name)) and match[1] in names)]


def _called(model: nn.Module, variables: Mapping[str, Any], images: jax.Array, depth: int) -> "OrderedDict[str, Any]":
    """Returns the outputs of the submodules down to a depth, in the order of their calls."""
    calls: list[tuple[str, ...]] = []

    def watched(module: nn.Module, method: str) -> bool:
        # Flax asks after each call: the order of its questions is the order of the outputs.
        found = method == "__call__" and 1 <= len(module.path) <= depth
        if found:
            calls.append(module.path)
        return found

    given = _without_captured(variables)
    _, captured = model.apply(given, images, train=False, capture_intermediates=watched, mutable=[_COLLECTION])
    outputs: OrderedDict[str, Any] = OrderedDict()
    for path in dict.fromkeys(calls):
        found: Any = captured[_COLLECTION]
        for part in path:
            found = found.get(part, {})
        # A lifted transformation such as nn.scan may keep what is inside of it to itself.
        for i, output in enumerate(found.get("__call__", ()), start=1):
            name = "/".join(path) if i == 1 else f"{'/'.join(path)}#{i}"
            outputs[name] = output
    return outputs


def _without_captured(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tree for name, tree in variables.items() if name != _COLLECTION}


def _depth(part: str) -> int:
    return part.count("/") + 1


def _unknown(part: str, known: Iterable[str]) -> UsageError:
    return UsageError(f"the network has no part {part!r}: {nearest(part, list(known))}")
