"""Files that are written whole or not at all, and where those go that can be made again."""

import os
from pathlib import Path


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


def user_cache(name: str) -> Path:
    """Returns this user's directory for what can be made again: `name` below convjax's in $XDG_CACHE_HOME or ~/.cache."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base / "convjax" / name
