"""Functions on arrays: the numerics of ConvNets, without Flax."""

from convjax.ops.activation import relu, relu6
from convjax.ops.conv import conv2d
from convjax.ops.geometry import Padding, Size, output_size
from convjax.ops.pool import adaptive_avg_pool, avg_pool, global_avg_pool, max_pool

__all__ = [
    "Padding",
    "Size",
    "adaptive_avg_pool",
    "avg_pool",
    "conv2d",
    "global_avg_pool",
    "max_pool",
    "output_size",
    "relu",
    "relu6",
]
