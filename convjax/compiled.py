"""Compiled programs, kept from one process to the next: XLA takes longer to compile a step than to take hundreds.

JAX's own cache writes in place, so that a process that is killed leaves half a program behind, which is warned of for
ever after; and it can only be bounded with another package. So entries are kept here: whole or not at all, verified by
a digest, the longest unused taken away first.
"""

import contextlib
import os
import platform
from pathlib import Path

import jax
import jaxlib.version
from jax._src import compilation_cache, config
from jax._src.compilation_cache_interface import CacheInterface

from convjax import digest
from convjax.errors import switched_off
from convjax.files import keep_within, user_cache, written_apart

VARIABLE = "CONVJAX_COMPILATION_CACHE"
LARGEST = 1_000_000_000
"""Bytes that all programs may have together."""
SECONDS = 0.1
"""Programs that are compiled in less are not kept."""
_SUFFIX = ".program"
_DIGEST = digest.running().digest_size


class Programs(CacheInterface):
    """A directory of compiled programs that several processes read and write at once.

    What cannot be read, or not be written, is as if it had never been there.
    """

    def __init__(self, directory: Path, largest: int = LARGEST) -> None:
        """Opens a directory, which may be missing.

        Args:
            directory: where they lie, beside the directories of other machines and versions.
            largest: bytes that those of all of them may have together.
        """
        self._path, self._largest = directory, largest

    def get(self, key: str) -> bytes | None:
        """Returns a program, as JAX put it there, or None."""
        file = self._file(key)
        try:
            content = file.read_bytes()
        except OSError:
            return None
        program = content[_DIGEST:]
        if digest.running(program).digest() != content[:_DIGEST]:
            return None
        with contextlib.suppress(OSError):
            os.utime(file)  # the time of its last use
        return program

    def put(self, key: str, value: bytes) -> None:
        """Keeps a program, in the place of one that could not be read."""
        with contextlib.suppress(OSError):
            with written_apart(self._file(key)) as opened:
                opened.write(digest.running(value).digest() + value)
            # What killed processes left half-written goes in time, too.
            keep_within(self._path.parent.glob("*/*"), self._largest)

    def _file(self, key: str) -> Path:
        # JAX's keys begin with a function's name, of any length.
        return self._path / f"{digest.digest(key.encode())}{_SUFFIX}"


def keep() -> None:
    """Lets JAX keep what this process compiles from here on, and take what it has kept, unless that is switched off.

    Raises:
        UsageError: $CONVJAX_COMPILATION_CACHE is something else than off.
    """
    if refused():
        return
    directory = place()
    with contextlib.suppress(OSError):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(directory):
        return
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", SECONDS)
    compilation_cache._cache = Programs(directory)


def refused() -> str:
    """Says why no programs are kept here; nothing where they are.

    Raises:
        UsageError: $CONVJAX_COMPILATION_CACHE is something else than off.
    """
    if switched_off(VARIABLE, os.environ):
        return f"off, as ${VARIABLE} asks for"
    if not config.enable_compilation_cache.value:
        return "off, as JAX's own setting asks for"
    if config.compilation_cache_dir.value:
        return f"by JAX in {config.compilation_cache_dir.value}"
    directory = place()
    near = next(path for path in (directory, *directory.parents) if path.exists())
    if near == directory and not _is_ours(directory):
        return f"none: others may write to {directory}, and what lies there is run"
    return "" if os.access(near, os.W_OK) else f"none: {near} cannot be written"


def place() -> Path:
    """Returns the directory for programs of this machine: of its JAX, its processor, and the cores they may use.

    XLA compiles for the instructions of the processor that it runs on, and divides loops among the cores that it finds;
    such a program may fail elsewhere, or give other last bits.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = (jaxlib.version.__version__, platform.machine(), *_processor(), cores, os.environ.get("NPROC"), _kernels())
    return user_cache("compiled") / digest.digest(repr(parts).encode())


def held() -> tuple[int, int]:
    """Returns how many programs of this machine there are, and their bytes."""
    sizes = [file.stat().st_size for file in place().glob(f"*{_SUFFIX}")]
    return len(sizes), sum(sizes)


def _is_ours(directory: Path) -> bool:
    """Says whether a directory is there, and nobody but this user can write to it: what lies in it is run."""
    try:
        status = directory.stat()
    except OSError:
        return False
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _processor() -> list[str]:
    """Returns what the system says of the first processor's make and instructions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n\n")[0].splitlines() if info.is_file() else [platform.processor()]
    return [line for line in lines if line.startswith(("vendor_id", "model", "stepping", "flags", "Features", "CPU "))]


def _kernels() -> list[str]:
    """Returns digests of the extensions that compiled programs may call."""
    files = sorted((Path(__file__).parent / "ops" / "cpu").glob("_*.so"))
    return [digest.digest(file.read_bytes()) for file in files]
