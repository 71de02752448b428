"""A command that computes starts itself anew with other settings of the allocator, and nobody sees it do so."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from real_command import Command

from convjax import allocator, cli
from convjax.errors import UsageError

PROBE = """
import json, os, sys
from pathlib import Path

started = dict(v.split("=", 1) for v in Path("/proc/self/environ").read_text().split("\\0") if "=" in v)
told = {"pid": os.getpid(), "argv": sys.argv, "now": dict(os.environ), "started": started, "warn": sys.warnoptions}
with Path(os.environ["PROBE"]).open("a") as file:
    file.write(json.dumps(told) + "\\n")

from convjax.models import MLP
from convjax.train.config import Config

config = Config(model=MLP())
"""
"""An experiment that writes down in what process it is read."""
OF_JAX = ("TF_CPP_MIN_LOG_LEVEL", "TPU_SKIP_MDS_QUERY")
"""What JAX adds to the environment when it is imported."""
SCRIPT = [str(Path(sys.executable).parent / "convjax")]


def bare() -> dict[str, str]:
    """Returns the environment without what sets an allocator, and without what JAX adds."""
    prefixes = ("MALLOC_", "GLIBC_", "OMP_", "GOMP_", "CONVJAX_")
    return {name: v for name, v in os.environ.items() if not name.startswith(prefixes) and name not in OF_JAX}


def probe(
    tmp_path: Path, command: list[str], subcommand: str = "train", **environment: str
) -> tuple[dict[str, Any], int, str]:
    """Lets a command read the experiment and fail at once at a flag; returns what was told, exit code and errors."""
    file, told = tmp_path / "probe.py", tmp_path / "told"
    file.write_text(PROBE)
    told.unlink(missing_ok=True)
    own = bare()
    process = subprocess.Popen(
        [*command, subcommand, str(file), "--optim.lr", "-1"],
        env={**own, "PROBE": str(told), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    _, errors = process.communicate(timeout=120)
    (line,) = told.read_text().splitlines()  # read once: there was no second process
    found = json.loads(line)
    assert found["pid"] == process.pid
    assert found["argv"][1:] == [subcommand, str(file), "--optim.lr", "-1"]
    now = {name: value for name, value in found["now"].items() if name not in OF_JAX}
    assert now == {**own, "PROBE": str(told), **environment}
    return found, process.returncode, errors


def applied(found: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in found["started"].items() if name in allocator.SETTINGS}


@pytest.mark.parametrize(
    "command", [SCRIPT, [sys.executable, "-m", "convjax"], [sys.executable, "-W", "ignore::FutureWarning", *SCRIPT]]
)
def test_the_command_starts_anew_as_the_same_process(tmp_path: Path, command: list[str]) -> None:
    found, code, errors = probe(tmp_path, command)
    assert applied(found) == allocator.SETTINGS
    assert found["warn"] == (["ignore::FutureWarning"] if "-W" in command else [])
    assert (code, errors) == (2, "convjax: error: optim.lr is -1.0: it must be above 0\n")


def test_what_is_profiled_is_what_trains(tmp_path: Path) -> None:
    found, code, errors = probe(tmp_path, SCRIPT, "profile")
    assert applied(found) == allocator.SETTINGS
    assert (code, errors) == (2, "convjax: error: optim.lr is -1.0: it must be above 0\n")


def test_whatever_command_keeps_programs_settles_its_memory() -> None:
    """Both are for commands that run networks; profiles do not take programs that were kept."""
    modules = {name: Path(cli.__file__).with_name(f"{module}.py") for name, (module, _) in cli.COMMANDS.items()}
    keep = {name for name, file in modules.items() if "compiled.keep()" in file.read_text()}
    assert {*keep, "profile"} == cli.COMPUTE


@pytest.mark.parametrize(
    "environment",
    [
        {"CONVJAX_ALLOCATOR": "off"},
        {"MALLOC_ARENA_MAX": "2"},
        {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=3"},
        {"OMP_WAIT_POLICY": "passive"},
        {"JAX_PLATFORMS": "cuda,cpu"},
    ],
)
def test_it_does_not_where_it_is_not_wanted(tmp_path: Path, environment: dict[str, str]) -> None:
    found, code, _ = probe(tmp_path, SCRIPT, **environment)
    own = {name: value for name, value in environment.items() if name in allocator.SETTINGS}
    assert applied(found) == own
    assert code == 2


def test_a_program_that_calls_the_command_is_left_alone(tmp_path: Path) -> None:
    call = "import sys; sys.argv = ['x', *sys.argv[1:]]; from convjax.cli import main; main(sys.argv[1:])"
    found, code, _ = probe(tmp_path, [sys.executable, "-c", call])
    assert applied(found) == {}
    assert code == 2


def test_the_variable_is_checked(convjax: Command, tmp_path: Path) -> None:
    done = convjax("train", tmp_path / "x.py", CONVJAX_ALLOCATOR="yes")
    assert done.returncode == 2
    assert done.stderr == "convjax: error: $CONVJAX_ALLOCATOR is 'yes': it must be off, or not set\n"
    with pytest.raises(UsageError):
        allocator.settings({"CONVJAX_ALLOCATOR": "yes"})


def test_an_accelerator_keeps_its_own_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    assert allocator.settings({}) == allocator.SETTINGS
    assert allocator.settings({"JAX_PLATFORMS": "cpu"}) == allocator.SETTINGS
    assert allocator.settings({"JAX_PLATFORMS": "tpu"}) == {}
    # The accelerator's package, where it is installed, is one that JAX finds by name.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "jax_plugins" or None)
    assert allocator.settings({}) == {}
    assert allocator.settings({"JAX_PLATFORMS": "cpu"}) == allocator.SETTINGS
    assert allocator.refused({}) == "none: there is an accelerator"


FAULTS = """
import resource

import jax
import jax.numpy as jnp

images = jnp.ones((32, 64, 64, 3))
layout = ("NHWC", "HWIO", "NHWC")
kernels = [jnp.ones((3, 3, 3, 32)), jnp.ones((3, 3, 32, 32))]

@jax.jit
def step(kernels):
    def loss(kernels):
        x = images
        for kernel in kernels:
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout))
        return x.mean()
    return [k - 0.1 * g for k, g in zip(kernels, jax.grad(loss)(kernels))]

def pages(steps):
    global kernels
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        kernels = jax.block_until_ready(step(kernels))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / steps

pages(8)  # the heap grows in the first steps
print(min(pages(2) for _ in range(6)))  # and now and then, as buffers of two steps overlap
"""
"""A training step that needs a hundred megabytes, and how many pages Linux hands out in each."""


def faults(environment: dict[str, str]) -> float:
    given = {**bare(), "JAX_PLATFORMS": "cpu", **environment}
    done = subprocess.run([sys.executable, "-c", FAULTS], env=given, check=True, capture_output=True, text=True)
    return float(done.stdout)


def test_a_step_gets_the_pages_of_the_step_before() -> None:
    # One convolution's output has 16 MB: eight large pages, or 4,096 small ones.
    assert faults(allocator.SETTINGS) < 4
    assert faults({}) > 4096
