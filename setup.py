"""Builds the CPU kernels where a C++ compiler and oneDNN are there (extra `cpu`); everything else is in pyproject.toml.

`pip install --no-build-isolation --no-deps -e .` after `pip install -e '.[cpu]'`: the headers of XLA's foreign function
interface are those of the jaxlib that will run them.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup


def extensions() -> list[Extension]:
    """Returns the extension, or none where what it is built with is missing."""
    headers = Path(sys.prefix) / "include"
    if not (headers / "dnnl.hpp").is_file():
        return []
    try:
        import jax.ffi
    except ImportError:
        return []
    return [
        Extension(
            "convjax.ops.cpu._native",
            [f"convjax/ops/cpu/{name}.cc" for name in ("convolve", "onednn", "winograd", "channels", "pool")],
            depends=[f"convjax/ops/cpu/{name}.h" for name in ("convolution", "numbers", "scratch", "winograd_loops")],
            include_dirs=[str(headers), jax.ffi.include_dir()],
            extra_compile_args=["-std=c++17", "-O3", "-fopenmp"],
            extra_link_args=["-fopenmp"],
            language="c++",
            optional=True,  # without a compiler convjax works, slower
        )
    ]


setup(ext_modules=extensions())
