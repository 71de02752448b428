"""What a network computes on its way: the outputs of its stages and blocks by name."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from convjax.errors import UsageError

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
    calls: list[tuple[str, ...]] = []

    def watched(module: nn.Module, method: str) -> bool:
        # Flax asks after each call: the order of its questions is the order of the outputs.
        found = method == "__call__" and 1 <= len(module.path) <= depth
        if found:
            calls.append(module.path)
        return found

    given = {name: tree for name, tree in variables.items() if name != _COLLECTION}
    _, captured = model.apply(given, images, train=False, capture_intermediates=watched, mutable=[_COLLECTION])
    outputs: OrderedDict[str, Any] = OrderedDict()  # jit keeps its order, and sorts a plain dict
    for path in dict.fromkeys(calls):
        found: Any = captured[_COLLECTION]
        for part in path:
            found = found.get(part, {})
        # A lifted transformation such as nn.scan may keep what is inside of it to itself.
        for i, output in enumerate(found.get("__call__", ()), start=1):
            name = "/".join(path) if i == 1 else f"{'/'.join(path)}#{i}"
            outputs[name] = output
    return _with_stages(outputs)


def _with_stages(outputs: "OrderedDict[str, Any]") -> "OrderedDict[str, Any]":
    """Returns the outputs with that of each stage after that of its last block."""
    last = {match[1]: name for name in outputs if (match := _PART.fullmatch(name))}
    named: OrderedDict[str, Any] = OrderedDict()
    for name, output in outputs.items():
        named[name] = output
        for stage, block in last.items():
            if block == name and stage not in outputs:
                named[stage] = output
    return named
