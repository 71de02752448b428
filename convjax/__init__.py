"""convjax: functional ConvNets in JAX and Flax, for experiments that can be trusted.

Images are arrays `[N, H, W, C]` (NHWC), kernels `[kernel_h, kernel_w, C_in / groups, C_out]` (HWIO).
"""

__version__ = "0.1.0"
