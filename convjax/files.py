"""Files that are written whole or not at all, and where those go that can be made again."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file under another name first, so that under its own there is either all of it or what was before.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with temporary.open("wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())  # or else a power failure could leave the new name with nothing in it
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def written_apart(file: Path) -> Iterator[BinaryIO]:
    """Opens a file under a name of its own, which takes the place of `file` at the end; several processes may at once.

    What this leaves behind after a power failure may be damaged: for what is verified when it is read.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    handle, name = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as opened:
            yield opened
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def keep_within(files: Iterable[Path], largest: int) -> None:
    """Takes away the files that have not been touched for longest, until the others have so many bytes at most."""
    found = []
    for file in files:
        with contextlib.suppress(FileNotFoundError):  # another process is at it, too
            status = file.stat()
            found.append((status.st_mtime, status.st_size, file))
    size = sum(size for _, size, _ in found)
    for _, part, file in sorted(found):
        if size <= largest:
            break
        file.unlink(missing_ok=True)
        size -= part


def user_cache(name: str) -> Path:
    """Returns this user's directory for what can be made again: `convjax/name` in $XDG_CACHE_HOME, or in ~/.cache."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base / "convjax" / name
