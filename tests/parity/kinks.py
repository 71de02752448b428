"""How near a network's values come to where its activations and poolings bend.

A rectifier's gradient jumps at zero, and that of a max-pooling where the two largest values of a window are equal. A
value nearer to such a place than rounding may end on either side of it, and gradients then differ by far more.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

MARGIN = 1e-6
"""Least distance of a value from where the gradient jumps, relative to the root mean square of values there."""
_BENDS: dict[str, tuple[float, ...]] = {
    "relu": (0,),
    "relu_": (0,),
    "hardtanh": (0, 6),  # as ReLU6
    "hardtanh_": (0, 6),
    "hardswish": (-3, 3),
    "hardswish_": (-3, 3),
    "hardsigmoid": (-3, 3),
    "hardsigmoid_": (-3, 3),
}


class Kinks(TorchDispatchMode):  # type: ignore[misc]
    """Watches what PyTorch computes.

    Attributes:
        margin: the least distance of a value from a bend so far, relative to the root mean square of the values there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.margin = float("inf")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _BENDS:
            self._note(args[0], min(float((args[0] - bend).abs().min()) for bend in _BENDS[name]))
        elif name == "max_pool2d_with_indices":
            self._note(args[0], _least_lead(*args))
        return func(*args, **(kwargs or {}))

    def _note(self, values: torch.Tensor, distance: float) -> None:
        self.margin = min(self.margin, distance / float(values.square().mean().sqrt()))


def _least_lead(
    x: torch.Tensor, size: Any, stride: Any = (), padding: Any = (0, 0), dilation: Any = (1, 1), ceil: bool = False
) -> float:
    """Returns by how much the largest value of a window exceeds the second at least.

    Equal ones do not count. They are a rectifier's zeros, which have no gradient, or one and the same value by way of
    two windows of a pooling before, where the gradient ends whichever is taken.
    """
    (height, width), (down, right) = size, stride or size
    top, left = padding[0], padding[-1]
    more = (down, right) if ceil else (0, 0)
    padded = torch.nn.functional.pad(x, (left, left + more[1], top, top + more[0]), value=-float("inf"))
    windows = padded.unfold(2, height, down).unfold(3, width, right).flatten(-2)
    first, second = windows.topk(2).values.unbind(-1)
    lead = (first - second)[first > second]
    return float(lead.min()) if lead.numel() else float("inf")
