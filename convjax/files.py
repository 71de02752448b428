"""Files that are written whole or not at all."""

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
