"""An ONNX graph as it grows: nodes, constants, and where the channels of each value stand."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx.helper
import onnx.numpy_helper
from numpy.typing import NDArray

CHANNELS_FIRST = (0, 3, 1, 2)
"""From `[N, H, W, C]`, as JAX has images, to `[N, C, H, W]`, as ONNX convolves and pools them."""
CHANNELS_LAST = (0, 2, 3, 1)
"""And back; also the place in `[N, C, H, W]` of each axis of `[N, H, W, C]`."""


class Unsupported(Exception):
    """An equation of a jaxpr that is not written as ONNX; the message says what about it."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A value that depends on the images.

    Attributes:
        name: its name in the graph.
        shape: its shape in the jaxpr; the batch is a symbol.
        channels_first: whether the graph has it as `[N, C, H, W]` where the jaxpr has it as `[N, H, W, C]`.
    """

    name: str
    shape: tuple[Any, ...]
    channels_first: bool = False


Value: TypeAlias = Tensor | NDArray[Any]
"""What depends on the images is in the graph; everything else is a constant, computed beforehand."""


class Graph:
    """Nodes in their order, and constants.

    Attributes:
        scope: the module that nodes are made for from now on, as `stem/conv`; part of their names.
        images: name of the input.
        nodes: so far.
        constants: so far, by name.
    """

    def __init__(self, images: str) -> None:
        self.scope = ""
        self.images = images
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self._known: dict[tuple[Any, ...], str] = {}
        self._moved: dict[str, str] = {}

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Appends a node with one output, and returns its name."""
        return self.nodes_output(operator, inputs, 1, **attributes)[0]

    def nodes_output(self, operator: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """Appends a node, and returns the names of its outputs."""
        name = "/".join(filter(None, (self.scope, f"{operator}_{len(self.nodes)}")))
        names = [name if outputs == 1 else f"{name}:{i}" for i in range(outputs)]
        self.nodes.append(onnx.helper.make_node(operator, inputs, names, name=name, **attributes))
        return names

    def constant(self, array: Any, dtype: Any = None) -> str:
        """Returns the name of a constant; equal ones are kept once."""
        array = np.asarray(array, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            # Of numbers and vectors of them, many modules may have the same.
            scope = self.scope if array.ndim > 1 else ""
            name = "/".join(filter(None, (scope, f"constant_{len(self.constants)}")))
            self._known[key] = name
            self.constants[name] = array
        return self._known[key]

    def indices(self, *values: int) -> str:
        """Returns the name of a constant vector of whole numbers: axes, sizes, positions."""
        return self.constant(values, np.int64)

    def name(self, value: Value, *, channels_first: bool = False) -> str:
        """Returns the name of a value in one of the two layouts, moved into it if it must be."""
        if not isinstance(value, Tensor):
            return self.constant(value.transpose(CHANNELS_FIRST) if channels_first and value.ndim == 4 else value)
        if len(value.shape) != 4 or value.channels_first == channels_first:
            return value.name
        if value.name not in self._moved:
            self._moved[value.name] = self.node(
                "Transpose", value.name, perm=CHANNELS_FIRST if channels_first else CHANNELS_LAST
            )
        return self._moved[value.name]

    def reshape(self, name: str, before: tuple[Any, ...], after: tuple[Any, ...]) -> str:
        """Reshapes a value, of which at most one axis is a symbol."""
        return name if before == after else self.node("Reshape", name, self.indices(*sizes(after)))

    def slice(self, value: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
        """Takes `value[start:stop:step]` of one axis, or with a negative step the other way round."""
        stop = stop if stop >= 0 else np.iinfo(np.int64).min
        after = list(value.shape)
        after[axis] = len(range(start, max(stop, -1), step))
        if tuple(after) == value.shape and step == 1:
            return value
        places = (self.indices(place) for place in (start, stop, stored(value, axis), step))
        name = self.node("Slice", value.name, *places)
        return dataclasses.replace(value, name=name, shape=tuple(after))

    def batch(self) -> str:
        """Returns the name of a vector that holds the number of images."""
        return self.node("Shape", self.images, start=0, end=1)

    def used(self, output: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Returns the nodes and constants that an output depends on."""
        needed, nodes = {output}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                nodes.append(node)
                needed.update(node.input)
        kept = {name: array for name, array in self.constants.items() if name in needed}
        return nodes[::-1], [onnx.numpy_helper.from_array(array, name) for name, array in kept.items()]


def stored(value: Tensor, axis: int) -> int:
    """Returns which axis of the value in the graph an axis of the jaxpr is."""
    return CHANNELS_LAST[axis] if value.channels_first else axis


def shape_of(variable: Any) -> tuple[Any, ...]:
    """Returns the shape of a variable of a jaxpr."""
    return tuple(variable.aval.shape)


def dtype_of(variable: Any) -> np.dtype[Any]:
    """Returns the dtype of a variable of a jaxpr."""
    return np.dtype(variable.aval.dtype)


def sizes(shape: tuple[Any, ...]) -> list[int]:
    """Returns a shape as ONNX's Reshape takes it: -1 for the axis that depends on the batch.

    Raises:
        Unsupported: several axes do.
    """
    found = [size if isinstance(size, int) else -1 for size in map(_whole, shape)]
    if found.count(-1) > 1:
        raise Unsupported(f"several axes of {shape} depend on the batch")
    return found


def is_static(shape: tuple[Any, ...]) -> bool:
    """Says whether a shape does not depend on the batch."""
    return all(isinstance(_whole(size), int) for size in shape)


def _whole(size: Any) -> Any:
    return int(size) if isinstance(size, np.integer) else size
