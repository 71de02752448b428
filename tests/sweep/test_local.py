"""Processes on this machine, with a stand-in for `convjax`."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from convjax.sweep.job import Job
from convjax.sweep.launch import Standing
from convjax.sweep.local import Local
from convjax.sweep.record import Arm
from convjax.sweep.resources import Machine
from convjax.train import lock

# Notes its cores, and ends when it is told to, or at a signal.
COMMAND = """#!/bin/bash
trap 'echo told; exit 143' TERM
taskset -pc $$ | sed 's/.*: //'
echo "in $SHARE"
while [[ ! -e end ]]; do sleep 0.05; done
exit 4
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    (tmp_path / "convjax").write_text(COMMAND)
    (tmp_path / "convjax").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    arms = [Arm.of(tmp_path, digit * 32, {"seed": int(digit)}) for digit in "012"]
    return [Job.of(arm, Path("experiment.py"), []) for arm in arms]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def logged(job: Job, line: str) -> bool:
    return job.arm.log.is_file() and line in job.arm.log.read_text().splitlines()


def names(*jobs: Job) -> frozenset[str]:
    return frozenset({job.arm.name for job in jobs})


def test_so_many_at_once_each_on_its_own_cores(jobs: list[Job], tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    machine = Machine(tuple(sorted(before)), "SHARE", ("a", "b"))
    shares = machine.divide(2)
    launcher = Local(shares)
    launcher.submit(jobs)
    standing = launcher.poll()
    assert standing == Standing(waiting=names(jobs[2]), running=names(*jobs[:2]))
    assert os.sched_getaffinity(0) == before
    for job, share in zip(jobs, shares, strict=False):
        wait_for(lambda job=job, share=share: logged(job, f"in {share.environment['SHARE']}"))  # type: ignore[misc]
        cores = job.arm.log.read_text().splitlines()[1]
        assert cores in (",".join(map(str, share.cores)), f"{share.cores[0]}-{share.cores[-1]}")
    (tmp_path / "end").touch()
    wait_for(lambda: launcher.poll().over)
    assert [job.arm.exit_code() for job in jobs] == [4] * 3
    assert [job.arm.state for job in jobs] == ["failed"] * 3


def test_a_signal_reaches_what_runs_and_nothing_else_begins(jobs: list[Job]) -> None:
    launcher = Local(Machine((), "SHARE", ()).divide(1))
    launcher.submit(jobs)
    launcher.poll()
    wait_for(lambda: logged(jobs[0], "in "))
    launcher.stop(signal.SIGTERM)
    wait_for(lambda: launcher.poll().over)
    assert logged(jobs[0], "told")
    assert [job.arm.exit_code() for job in jobs] == [143, None, None]
    assert [job.arm.state for job in jobs] == ["missing"] * 3


def test_a_run_that_another_process_still_trains_is_waited_for(jobs: list[Job], tmp_path: Path) -> None:
    (tmp_path / "end").touch()
    jobs[0].arm.directory.mkdir(parents=True)
    launcher = Local(Machine((), "SHARE", ()).divide(1))
    with lock.Lock(jobs[0].arm.directory):
        launcher.submit(jobs)
        wait_for(lambda: launcher.poll().waiting == names(jobs[0]) and not launcher.poll().running)
        (jobs[0].arm.directory / "result.json").write_text("{}")
    # It has finished meanwhile: there is nothing left to do.
    assert launcher.poll().over
    assert not jobs[0].arm.log.exists()
