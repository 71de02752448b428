"""Kernels where a program is divided among devices: a foreign function cannot be, unless each part calls it."""

import json
import os
import subprocess
import sys

import pytest
from compiling import need_native

SMALL, LARGE = "((4, 9, 8, 4), (3, 3, 4, 8))", "((64, 32, 32, 32), (3, 3, 32, 32))"
"""Shapes of images and kernels; the pure kernels would take the large ones in parts, which XLA cannot divide."""

PROGRAM = """
import json
import jax, numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from convjax.ops import cpu

def convolve(x, kernel):
    return lax.conv_general_dilated(x, kernel, (STRIDE, STRIDE), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

def gradients(x, kernel):
    y, backward = jax.vjp(convolve, x, kernel)
    return y, *backward(y)

def parts(x, kernel):
    y, dx, dkernel = gradients(x, kernel)
    return y, dx, lax.psum(dkernel, "data")

mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
images, everywhere = P("data"), P()
ways = {
    "jit": jax.jit(gradients, in_shardings=(NamedSharding(mesh, images), NamedSharding(mesh, everywhere))),
    "shard_map": jax.jit(jax.shard_map(
        parts, mesh=mesh, in_specs=(images, everywhere), out_specs=(images, images, everywhere), check_vma=False)),
}
rng = np.random.default_rng(0)
x, kernel = (rng.integers(-4, 5, shape).astype(np.float32) for shape in SHAPES)
expected = jax.jit(lambda x, kernel: gradients(x, kernel))(x, kernel)
found = {}
with cpu.switched_on("native"):
    for name, way in ways.items():
        lowered = way.lower(x, kernel)
        same = [bool(np.array_equal(a, b)) for a, b in zip(way(x, kernel), expected, strict=True)]
        calls, gathers = lowered.as_text().count("convjax_convolve"), lowered.compile().as_text().count("all-gather")
        found[name] = [calls, gathers, all(same)]
print(json.dumps(found))
"""


@pytest.mark.parametrize(("shapes", "stride"), [(SMALL, 2), (LARGE, 1)])
def test_divided_programs_call_kernels_only_where_each_part_does(shapes: str, stride: int) -> None:
    need_native()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("SHAPES", shapes).replace("STRIDE", str(stride))],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    # Calls, all-gathers of the batch, and whether the integers are the same.
    assert json.loads(done.stdout) == {"jit": [0, 0, True], "shard_map": [3, 0, True]}
