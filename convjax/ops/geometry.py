"""The geometry that convolution and pooling share: windows, strides, padding, output sizes."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

Size: TypeAlias = int | tuple[int, int]
"""One number for both axes, or (height, width)."""

Padding: TypeAlias = int | Sequence[tuple[int, int]] | Literal["SAME", "VALID"]
"""Pixels added on every side; or ((top, bottom), (left, right)); or a rule.

`VALID` adds nothing. `SAME` adds what makes the output `ceil(input / stride)` long; where that is an odd
number the extra pixel goes to the bottom and the right (TensorFlow's rule, not PyTorch's).
"""


def pair(size: Size, what: str, minimum: int = 1) -> tuple[int, int]:
    """Returns `size` as (height, width).

    Raises:
        ValueError: it is not one integer or two, or one is below `minimum`.
    """
    both = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(both) != 2 or any(not _is_integer(s) or s < minimum for s in both):
        raise ValueError(f"{what} is {size!r}: it must be an integer, or two, of at least {minimum}")
    return both


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def pad_pairs(
    padding: Padding,
    image: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns `padding` as ((top, bottom), (left, right)) in pixels.

    Raises:
        ValueError: the padding is neither a rule, a non-negative integer, nor two pairs of them.
    """
    if isinstance(padding, int) and _is_integer(padding) and padding >= 0:
        return (padding, padding), (padding, padding)
    if padding == "VALID":
        return (0, 0), (0, 0)
    if padding == "SAME":
        missing = [
            max((-(-size // s) - 1) * s + d * (w - 1) + 1 - size, 0)
            for size, w, s, d in zip(image, window, stride, dilation, strict=True)
        ]
        (top, bottom), (left, right) = ((m // 2, m - m // 2) for m in missing)
        return (top, bottom), (left, right)
    if isinstance(padding, tuple | list) and len(padding) == 2 and all(isinstance(p, tuple | list) for p in padding):
        rows, columns = (pair(p, "padding", minimum=0) for p in padding)
        return rows, columns
    raise ValueError(
        f"padding is {padding!r}: it must be SAME, VALID, an integer of at least 0, or ((top, bottom), (left, right))"
    )


def output_size(size: int, window: int, stride: int, pad: tuple[int, int], dilation: int = 1) -> int:
    """Returns the length of one output axis.

        floor((size + pad_low + pad_high - dilation * (window - 1) - 1) / stride) + 1

    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.

    Raises:
        ValueError: the window does not fit into the padded input even once.
    """
    span = dilation * (window - 1) + 1
    padded = size + pad[0] + pad[1]
    if span > padded:
        raise ValueError(f"a window spanning {span} pixels does not fit into {padded} ({size} padded by {pad})")
    return (padded - span) // stride + 1


def check_image(x_shape: tuple[int, ...], what: str) -> None:
    """Raises ValueError if `x_shape` is not `[N, H, W, C]`."""
    if len(x_shape) != 4:
        raise ValueError(f"{what} takes images [N, H, W, C], not an array of shape {x_shape}")
