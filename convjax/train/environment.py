"""Where a run's numbers come from besides its configuration: command, code, packages, machine."""

import datetime
import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib.version

import convjax
from convjax import allocator
from convjax.digest import digest
from convjax.ops import cpu

_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL")
_LONGEST_DIFF = 1_000_000


def describe(experiment: Path | None, seeds: Sequence[int] = ()) -> dict[str, Any]:
    """Returns what may have had a part in a run's numbers, as what JSON knows.

    Args:
        experiment: the experiment's file, whose git repository is told, too.
        seeds: of all runs that are trained as one program, if they are.
    """
    package = Path(convjax.__file__).parent
    devices = jax.devices()
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "directory": str(Path.cwd()),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "code": {
            "convjax": convjax.__version__,
            "convjax_digest": _sources(package),
            "convjax_git": git(package),
            "experiment_git": None if experiment is None else git(experiment.resolve().parent),
        },
        "machine": {
            "platform": platform.platform(),
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "devices": [f"{device.platform}: {device.device_kind}" for device in devices],
            "processes": jax.process_count(),
            # The backend's own build: XLA's version on CPU, CUDA's on GPU, libtpu's on TPU.
            "backend": devices[0].client.platform_version,
        },
        "cpu_kernels": cpu.active(),
        "allocator": allocator.active(),
        "seeds_at_once": list(seeds),
        "python": platform.python_version(),
        "jaxlib": jaxlib.version.__version__,
        "variables": {
            name: value for name, value in sorted(os.environ.items()) if name in _VARIABLES or name.startswith("JAX_")
        },
        # A broken installation may leave a package without a name.
        "packages": dict(sorted((m["Name"], m["Version"]) for m in _packages() if "Name" in m)),
    }


def numerical(environment: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of an environment of which the bits of a result may depend."""
    matter = ("jax", "jaxlib", "flax", "optax", "numpy", "libtpu")
    packages = {n: v for n, v in environment["packages"].items() if n in matter or n.startswith("jax-cuda")}
    machine = {name: value for name, value in environment["machine"].items() if name != "platform"}
    return {
        "code": {"convjax_digest": environment["code"]["convjax_digest"]},
        "machine": machine,
        # Runs that are older than the kernels went by stock XLA.
        "cpu_kernels": environment.get("cpu_kernels", "off"),
        "variables": environment["variables"],
        "packages": packages,
        # Another number of them is another program, which XLA may round otherwise.
        **({"seeds_at_once": len(environment["seeds_at_once"])} if environment.get("seeds_at_once") else {}),
    }


def git(directory: Path) -> dict[str, Any] | None:
    """Returns commit, differences to it, and untracked files of the repository around a directory, if there is one."""

    def ask(*arguments: str, cwd: Path = directory) -> str | None:
        # The run must not wait for a pager or a password, nor take a lock of the repository.
        command = ["git", "--no-pager", "--no-optional-locks", *arguments]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace", check=False)
        return done.stdout if done.returncode == 0 else None

    if shutil.which("git") is None or (root := ask("rev-parse", "--show-toplevel")) is None:
        return None
    top = Path(root.rstrip("\n"))
    commit, untracked = ask("rev-parse", "HEAD"), ask("ls-files", "--others", "--exclude-standard", cwd=top)
    diff = ask("diff", "--no-ext-diff", "HEAD") or ""
    if len(diff) > _LONGEST_DIFF:
        diff = f"{diff[:_LONGEST_DIFF]}\n(cut off after {_LONGEST_DIFF:,} of {len(diff):,} characters)\n"
    return {
        "repository": top.name,
        "commit": commit.strip() if commit else None,
        "diff": diff,
        "untracked": (untracked or "").splitlines(),
    }


def _packages() -> Iterator[importlib.metadata.PackageMetadata]:
    """Yields what installed packages say of themselves; a distribution reads its file for each thing it is asked."""
    return (distribution.metadata for distribution in importlib.metadata.distributions())


def _sources(package: Path) -> str:
    """Returns a digest of the package's source files and their names; the arithmetic of kernels is in headers, too."""
    files = sorted(file for suffix in ("py", "cc", "h") for file in package.rglob(f"*.{suffix}"))
    return digest("".join(f"{f.relative_to(package)} {digest(f.read_bytes())}\n" for f in files).encode())


def _processor() -> str:
    """Returns the processor's name, which decides on the instructions that XLA compiles to."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
