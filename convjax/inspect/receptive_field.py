"""Receptive fields: on which pixels of the image each unit of a layer depends, computed from the network's jaxpr.

No layer is asked what it is: whatever a network is made of, its jaxpr says where each number comes from.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from convjax.errors import UsageError
from convjax.inspect import count
from convjax.inspect.dependence import reaches
from convjax.inspect.features import output_of

_LARGER = (1, 3, 9)
"""How many times larger than asked for an image may be made to find a unit whose field no border cuts off."""


@dataclasses.dataclass(frozen=True)
class Fields:
    """The receptive fields of a layer's units on an image of one size, as the image's borders cut them off.

    Attributes:
        rows: int32 `[h, w, 2]`, the first row that each unit depends on and the one after the last.
        columns: int32 `[h, w, 2]`, likewise.
    """

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]

    def box(self, row: int, column: int) -> tuple[slice, slice]:
        """Returns the rows and columns of the image on which the unit at a place depends."""
        (top, bottom), (left, right) = self.rows[row, column], self.columns[row, column]
        return slice(int(top), int(bottom)), slice(int(left), int(right))


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The receptive field of a layer where no border cuts it off, in (rows, columns).

    Unit (i, j) depends on the pixels from `offset + stride * (i, j)` to below that plus `size`.
    Source: Araujo, Norris and Sim 2019, "Computing receptive fields of convolutional neural networks", Distill.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    offset: tuple[int, int]


def fields(model: nn.Module, image: tuple[int, int, int], part: str) -> Fields:
    """Returns the receptive fields of a layer's units.

    A field is the smallest rectangle around all pixels that can change the unit in evaluation mode, in any of its
    channels, whatever the weights are.

    Args:
        model: called as `model(images, train=...)`.
        image: (height, width, channels).
        part: a layer's name in `convjax.features`.

    Raises:
        UsageError: there is no such layer, or its output is no `[N, h, w, c]`.
    """
    images = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda v, x: output_of(model, v, x, part))(count.shapes(model, image), images)
    (output,) = jaxpr.out_avals if len(jaxpr.out_avals) == 1 else (None,)
    if output is None or getattr(output, "ndim", 0) != 4:
        raise UsageError(f"the output of {part!r} is no batch of images [N, h, w, c]: it has no receptive fields")
    rows, columns = (_ends(reaches(jaxpr, axis)) for axis in (1, 2))
    return Fields(rows, columns)


def geometry(model: nn.Module, image: tuple[int, int, int], part: str) -> Geometry | None:
    """Returns size, stride and offset of a layer's receptive field; None where a unit sees the whole of any image.

    Where no unit's field fits into the image, that of one 3 or 9 times as high (or as wide) is taken. A padding that
    depends on the image's size, as SAME does, then belongs to that one. The arguments are those of `fields`.
    """
    numbers = []
    for axis in (0, 1):
        for times in _LARGER:
            size = [side * times if i == axis else side for i, side in enumerate(image[:2])]
            found = fields(model, (size[0], size[1], image[2]), part)
            ends = found.rows[:, 0] if axis == 0 else found.columns[0]
            if (along := _along(ends, size[axis])) is not None:
                numbers.append(along)
                break
        else:
            return None
    sizes, strides, offsets = zip(*numbers, strict=True)
    return Geometry(sizes, strides, offsets)


def _along(ends: NDArray[np.int32], length: int) -> tuple[int, int, int] | None:
    """Returns size, stride and offset along an axis, from two units in its middle that no border cuts off."""
    i = max(len(ends) // 2 - 1, 0)
    two = ends[i : i + 2]
    if len(two) < 2 or two[0, 0] <= 0 or two[1, 1] >= length:
        return None
    (first, end), (following, _) = two.tolist()
    return end - first, following - first, first - i * (following - first)


def _ends(reach: NDArray[np.int32]) -> NDArray[np.int32]:
    """Returns the first pixel and the one after the last, `[h, w, 2]`, over all channels."""
    below, last = reach[:, 0].max(axis=-1)
    return np.stack([np.maximum(-below, 0), np.maximum(last + 1, 0)], axis=-1).astype(np.int32)
