"""How memory is taken from Linux: XLA takes fresh buffers in every step on a CPU, and glibc gives each back at once.

The kernel then zeroes their pages anew in every step. glibc reads what it is to do when a process starts, so a command
that computes starts itself once more, as the same process, before JAX is imported. So does GCC's OpenMP, by which
convolutions are computed.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping

from convjax.errors import switched_off

VARIABLE = "CONVJAX_ALLOCATOR"
MEMORY = {
    # Large pages where the kernel has them; large buffers from the heap, which is hardly ever made smaller.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": "10000000000",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
    # One heap for all threads: those of the others hold 64 MB at most, and what is larger is mapped and given back.
    "MALLOC_ARENA_MAX": "1",
}
"""What is set of memory; bytes."""
THREADS = {
    # Several of XLA's threads call OpenMP, each with helpers of its own, which are more than there are cores: so these
    # sleep as soon as they have nothing to do, and must be woken for the next convolution. They are to look out for it
    # for a few microseconds.
    "OMP_WAIT_POLICY": "active",
    "GOMP_SPINCOUNT": "2000",
}
"""What is set of threads; the latter in loops."""
SETTINGS = {**MEMORY, **THREADS}
"""All that is set."""
_SET = "set"
"""Value of the variable in a process that has been started again."""

_active: dict[str, str] = {}


def active() -> dict[str, str]:
    """Returns the settings that this process was started with by `settle`; none if it was not."""
    return dict(_active)


def settle() -> None:
    """Starts this process anew with `SETTINGS`, if that is of use; to be called before JAX is imported.

    It returns if there is no need, or in the process that was started anew, whose environment is then that of the
    first again: processes that are started from here decide for themselves.

    Raises:
        UsageError: $CONVJAX_ALLOCATOR is something else than off.
    """
    if os.environ.get(VARIABLE) == _SET:
        for name in (VARIABLE, *SETTINGS):
            os.environ.pop(name, None)
        _active.update(SETTINGS)
    elif (added := settings(os.environ)) and _is_the_command():
        with contextlib.suppress(OSError):  # slower, that is all
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **added, VARIABLE: _SET})


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns what `settle` sets in a process that computes in an environment; raises as `refused`."""
    return {} if refused(environment) else dict(SETTINGS)


def refused(environment: Mapping[str, str]) -> str:
    """Says why nothing is set in an environment; nothing where it is.

    Raises:
        UsageError: $CONVJAX_ALLOCATOR is something else than off.
    """
    if switched_off(VARIABLE, environment):
        return f"off, as ${VARIABLE} asks for"
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return "none: this is not Linux with glibc"
    if own := sorted(name for name in environment if name in SETTINGS or name.startswith("MALLOC_")):
        return f"none: {', '.join(f'${name}' for name in own)} stands as it is"
    return "" if _computes_on_cpu(environment) else "none: there is an accelerator"


def _is_the_command() -> bool:
    """Says whether this process runs the command and nothing else: not a test or a program that calls it."""
    given = len(sys.orig_argv) - len(sys.argv) + 1
    return "jax" not in sys.modules and given > 0 and sys.orig_argv[given:] == sys.argv[1:]


def _computes_on_cpu(environment: Mapping[str, str]) -> bool:
    """Says whether JAX will compute on the CPU, as far as can be told without importing it."""
    if platforms := environment.get("JAX_PLATFORMS"):
        return platforms.split(",")[0] == "cpu"
    plugins = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    return not plugins and not importlib.metadata.entry_points(group="jax_plugins")
