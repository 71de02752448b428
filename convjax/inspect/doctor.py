"""What may be amiss with a machine before the first run: found out by trying."""

import dataclasses
import importlib.metadata
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import jax
import numpy as np

from convjax import allocator, compiled
from convjax.data import loader, sources, splits
from convjax.errors import UsageError
from convjax.models import MLP
from convjax.ops import cpu
from convjax.ops.cpu import native
from convjax.train.config import Config, Mode, ParallelConfig, TrainConfig
from convjax.train.evaluate import begin, build
from convjax.train.parallel import Advance, Placement

ENOUGH_DISK = 5e9
"""Bytes below which checkpoints may soon find no room."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Attributes:
    check: what was looked at.
    fine: whether it is in order.
    found: what was found.
    advice: what to do; empty where nothing need be done.
    """

    check: str
    fine: bool
    found: str
    advice: str = ""


def examine(data: str, directory: str | None, workdir: Path) -> Iterator[Finding]:
    """Yields what was found of each thing.

    Args:
        data: name of a data set.
        directory: TFDS data directory.
        workdir: where runs are to be written.
    """
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("versions", versions),
        ("devices", devices),
        ("accelerator", partial(accelerator, Path("/dev"))),
        ("CPU kernels", cpu_kernels),
        ("allocator", memory),
        ("compiled programs", compiled_programs),
        ("TensorFlow", gpu_memory),
        (f"data set {data}", partial(data_set, data, directory)),
        (f"writing to {workdir}", partial(write_access, workdir)),
        (f"room in {workdir}", partial(disk, workdir)),
        *((f"one step, {mode}", partial(one_step, mode)) for mode in get_args(Mode)),
    ]
    for name, check in checks:
        try:
            yield check()
        except Exception as error:  # whatever a driver, a compiler or a library raises is what is to be found
            place = traceback.extract_tb(error.__traceback__)[-1]
            first = (str(error).splitlines() or [""])[0]
            found = f"{type(error).__name__}: {first}"
            yield Finding(name, False, found, f"raised at {place.filename}:{place.lineno}; is JAX_PLATFORMS right?")


def versions() -> Finding:
    """Tells the versions that numbers depend on."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    apart = importlib.metadata.version("jax") != importlib.metadata.version("jaxlib")
    return Finding("versions", not apart, found, "install jax and jaxlib of one version" if apart else "")


def devices() -> Finding:
    """Tells what JAX computes on."""
    found = [f"{device.platform}: {device.device_kind}" for device in jax.devices()]
    return Finding("devices", True, f"{len(found)} ({', '.join(sorted(set(found)))})")


def accelerator(dev: Path) -> Finding:
    """Finds an accelerator that the system has and JAX does not use.

    Args:
        dev: where the system lists devices.
    """
    check, used = "accelerator", jax.default_backend()
    nvidia, tpu = (dev / "nvidiactl").exists(), any(dev.glob("accel[0-9]*"))
    if nvidia and used != "gpu":
        return Finding(
            check, False, "an NVIDIA GPU that JAX does not use", "pip install -e '.[cuda]', or see nvidia-smi"
        )
    if tpu and used != "tpu":
        return Finding(check, False, "a TPU that JAX does not use", "pip install -e '.[tpu]'")
    return Finding(check, True, "none" if used == "cpu" else f"{used}, in use")


def cpu_kernels() -> Finding:
    """Tells what convolutions on a CPU are computed by, and why."""
    check, reason = "CPU kernels", native.unavailable()
    if (backend := jax.default_backend()) != "cpu":
        return Finding(check, True, f"not used on a {backend}")
    used = cpu.chosen()
    if used == "native":
        narrow = "; bfloat16 in float32, for want of AVX-512" if native.lacks_bfloat16() else ""
        return Finding(check, True, f"native{narrow}")
    if cpu.VARIABLE in os.environ:
        return Finding(check, True, f"{used}, as ${cpu.VARIABLE} asks for")
    advice = "pip install -e '.[cpu]', then pip install --no-build-isolation --no-deps -e .: half the time of a step"
    return Finding(check, True, f"{used}; native is {reason}", advice)


def memory() -> Finding:
    """Tells how commands that compute will take memory."""
    found = allocator.refused(os.environ) or "keeps large pages, set when a command starts that computes"
    return Finding("allocator", True, found)


def compiled_programs() -> Finding:
    """Tells where programs are kept that have been compiled."""
    if reason := compiled.refused():
        return Finding("compiled programs", True, reason)
    count, size = compiled.held()
    return Finding("compiled programs", True, f"{count}, {size / 1e6:.1f} MB in {compiled.place()}")


def gpu_memory() -> Finding:
    """Finds TensorFlow where it would take the memory of a GPU."""
    check = "TensorFlow"
    try:
        version = importlib.metadata.version("tensorflow")
    except importlib.metadata.PackageNotFoundError:
        return Finding(check, True, "not installed, and not needed to train")
    if jax.default_backend() != "gpu" or os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH") == "true":
        return Finding(check, True, f"{version}; convjax does not import it")
    advice = "set TF_FORCE_GPU_ALLOW_GROWTH=true if your own code imports it: else it takes all memory of the GPU"
    return Finding(check, True, f"{version}; convjax does not import it", advice)


def data_set(name: str, directory: str | None) -> Finding:
    """Looks for a data set, without reading it."""
    check = f"data set {name}"
    try:
        sources.require(name, directory=directory)
    except UsageError as error:
        return Finding(check, False, "not found", str(error))
    return Finding(check, True, "found")


def write_access(workdir: Path) -> Finding:
    """Writes a file where runs are to be written, and takes it away again."""
    check, nearest = f"writing to {workdir}", _nearest(workdir)
    try:
        with tempfile.NamedTemporaryFile(dir=nearest) as file:
            file.write(b"convjax")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Finding(check, False, f"{nearest}: {error.strerror}", "take another --workdir")
    return Finding(check, True, "possible")


def disk(workdir: Path) -> Finding:
    """Tells how much room is left where runs are to be written."""
    free = shutil.disk_usage(_nearest(workdir)).free
    advice = "" if free >= ENOUGH_DISK else "make room: a run keeps up to four checkpoints"
    return Finding(f"room in {workdir}", free >= ENOUGH_DISK, f"{free / 1e9:.1f} GB", advice)


def _nearest(path: Path) -> Path:
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def one_step(mode: Mode) -> Finding:
    """Compiles and takes one training step of a small network, on all devices."""
    count = jax.device_count()
    data = splits.load("digits", directory=None, image_size=None, validation=0.0)
    config = Config(
        model=MLP(hidden=(16,)), train=TrainConfig(batch_size=8 * count), parallel=ParallelConfig(mode=mode)
    )
    placement = Placement.of(config)
    step, shapes = build(config, data.info, placement)
    feed = loader.feed("resident", data.splits["train"], placement)
    advance = Advance(placement, step, feed, shapes)
    state = advance.enter(begin(config, step, data.info, placement))
    _, metrics = advance(state, next(iter(feed.batches(lambda n: np.arange(8 * count), 0, 1))))
    loss = float(metrics["loss"])
    # Ten classes, nothing learned yet.
    fine = bool(np.isfinite(loss)) and 1.0 < loss < 5.0
    advice = "" if fine else "the loss should be near 2.3"
    return Finding(f"one step, {mode}", fine, f"loss {loss:.3f} on {count} devices", advice)
