"""Compiles a network's blocks apart from each other: as one program the training step of the deepest takes XLA's
compiler for CPUs more than 24 GB of memory, though most of its blocks are equal.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax

from convjax.models.resnet_v2 import PreActBlock

DEEP = {"resnetv2_1001"}
"""Networks that need it."""


@contextmanager
def blocks_apart() -> Iterator[None]:
    """Calls one network's pre-activation blocks, without dropout, as compiled functions: equal ones as one."""
    compiled: dict[tuple[int, int, bool, bool], Any] = {}

    def call(method: Callable[..., Any], given: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        block = context.module
        if not isinstance(block, PreActBlock) or not block.path or block.is_initializing():
            return method(*given, **kwargs)
        assert block.dropout == block.drop_path == 0
        alone = block.clone(parent=None, name=None)
        key = (block.features, block.stride, block.first, block.train)
        if key not in compiled:
            compiled[key] = jax.jit(lambda variables, x: alone.apply(variables, x, mutable=["batch_stats"]))
        output, updated = compiled[key](block.variables, *given)
        if block.is_mutable_collection("batch_stats"):
            for name, value in updated["batch_stats"].items():
                block.put_variable("batch_stats", name, value)
        return output

    with nn.intercept_methods(call):
        yield
