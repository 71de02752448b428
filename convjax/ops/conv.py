"""Two-dimensional convolution."""

import jax
from jax import lax

from convjax.ops.geometry import Padding, Size, check_image, output_size, pad_pairs, pair


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: Size = 1,
    padding: Padding = "SAME",
    dilation: Size = 1,
    groups: int = 1,
) -> jax.Array:
    """Convolves images with a kernel (a cross-correlation, as everywhere in deep learning).

        y[n, i, j, o] = sum over u, v, c of
            x[n, i * stride + u * dilation - top, j * stride + v * dilation - left, g(o) * C_in/groups + c]
            * kernel[u, v, c, o]

    where pixels outside of the image are zero and `g(o) = o // (C_out / groups)` is the group of output
    channel o. `groups=C_in` is a depthwise convolution: each channel is filtered on its own, by
    `C_out / C_in` kernels.

    Args:
        x: images `[N, H, W, C_in]`.
        kernel: `[kernel_h, kernel_w, C_in / groups, C_out]`, of the same dtype as `x`.
        stride: pixels between neighbouring windows.
        padding: see `convjax.ops.Padding`.
        dilation: pixels between neighbouring taps of the kernel.
        groups: number of groups into which the channels are divided.

    Returns:
        `[N, H_out, W_out, C_out]` with the sizes of `convjax.ops.output_size`.

    Raises:
        ValueError: shapes, groups or geometry that do not fit together, or an empty output.
    """
    check_image(x.shape, "conv2d")
    if kernel.ndim != 4:
        raise ValueError(f"conv2d takes a kernel [kernel_h, kernel_w, C_in / groups, C_out], not {kernel.shape}")
    height, width, channels = x.shape[1:]
    window = (kernel.shape[0], kernel.shape[1])
    if groups < 1 or channels % groups or kernel.shape[3] % groups:
        raise ValueError(f"groups is {groups}: it must divide {channels} input and {kernel.shape[3]} output channels")
    if kernel.shape[2] != channels // groups:
        raise ValueError(
            f"kernel {kernel.shape} takes {kernel.shape[2]} channels a group, "
            f"but {channels} input channels in {groups} groups have {channels // groups}"
        )
    strides, dilations = pair(stride, "stride"), pair(dilation, "dilation")
    pads = pad_pairs(padding, (height, width), window, strides, dilations)
    for size, w, s, p, d in zip((height, width), window, strides, pads, dilations, strict=True):
        output_size(size, w, s, p, d)  # refuses an empty output, which lax would return
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=pads,
        rhs_dilation=dilations,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
