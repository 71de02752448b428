import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from convjax.errors import UsageError
from convjax.train.lock import Lock

HOLD = """
import sys
from pathlib import Path
from convjax.train.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_with_host_and_process(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    message = f"is being written by process {holder.pid} on host {socket.gethostname()}: wait for it"
    with pytest.raises(UsageError, match=message):
        Lock(tmp_path).check()
    with pytest.raises(UsageError, match=message), Lock(tmp_path):
        pass
    holder.communicate()
    Lock(tmp_path).check()
    with Lock(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    # What it wrote is still there, and is what a message would name.
    assert json.loads((tmp_path / "lock").read_text())["process"] == holder.pid
    began = time.monotonic()
    with Lock(tmp_path, silence=60):
        assert json.loads((tmp_path / "lock").read_text()) == {"host": socket.gethostname(), "process": os.getpid()}
    assert time.monotonic() - began < 30
    assert (tmp_path / "lock").read_text() == ""


def test_one_thread_of_a_process_holds_it(tmp_path: Path) -> None:
    with Lock(tmp_path), pytest.raises(UsageError, match=f"process {os.getpid()} on host"), Lock(tmp_path):
        pass


def elsewhere(path: Path) -> None:
    """Leaves a lock as a process on another machine would, on a file system that keeps kernel locks to one."""
    (path / "lock").write_text(json.dumps({"host": "node17", "process": 4711}))


def test_a_silent_holder_on_another_machine_is_taken_for_dead(tmp_path: Path) -> None:
    elsewhere(tmp_path)
    began = time.monotonic()
    with Lock(tmp_path, beat=0.1, silence=0.5):
        assert time.monotonic() - began >= 0.5
        assert json.loads((tmp_path / "lock").read_text())["process"] == os.getpid()


def beat(path: Path) -> None:
    for _ in range(100):
        os.utime(path)
        time.sleep(0.05)


def test_a_living_holder_on_another_machine_is_respected(tmp_path: Path) -> None:
    elsewhere(tmp_path)
    process = multiprocessing.get_context("spawn").Process(target=beat, args=(tmp_path / "lock",))
    process.start()
    try:
        with (
            pytest.raises(UsageError, match="is being written by process 4711 on host node17"),
            Lock(tmp_path, beat=1.0, silence=20.0),
        ):
            pass
    finally:
        process.terminate()
        process.join()
    assert json.loads((tmp_path / "lock").read_text())["host"] == "node17"


def test_a_holder_shows_that_it_lives(tmp_path: Path) -> None:
    with Lock(tmp_path, beat=0.02):
        os.utime(tmp_path / "lock", (0, 0))
        deadline = time.monotonic() + 30
        while (tmp_path / "lock").stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
