"""The explorer as a user starts it: the real command, and what it printed."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def explorer(*arguments: str | Path) -> Iterator[str]:
    """Runs `convjax explore` and gives the page's address; interrupts it in the end, as Ctrl-C does."""
    command = [Path(sys.executable).parent / "convjax", "explore", *arguments, "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, process.communicate(timeout=60)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert output.splitlines()[-1] == "ended"
