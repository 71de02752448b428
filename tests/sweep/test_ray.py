"""The Ray launcher, with a stand-in for `convjax`: what a task does, and what is asked of Ray."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from convjax.errors import RunError
from convjax.sweep import ray_cluster
from convjax.sweep.job import Job
from convjax.sweep.launch import Standing
from convjax.sweep.record import Arm
from convjax.train import lock

COMMAND = """#!/bin/bash
trap 'echo saved; exit 143' TERM
echo begun
while [[ ! -e end ]]; do sleep 0.05; done
exit 5
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    (tmp_path / "convjax").write_text(COMMAND)
    (tmp_path / "convjax").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    return Job.of(Arm.of(Path(), "0" * 32, {"seed": 0}), Path("experiment.py"), [])


def test_a_task_runs_the_command_in_the_directory_of_the_sweep(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "end").touch()
    monkeypatch.chdir("/")
    ray_cluster._train(job, str(tmp_path))
    assert job.arm.exit_code() == 5
    assert job.arm.log.read_text().splitlines() == [f"$ {job.line}", "begun"]


def test_a_task_that_is_cancelled_lets_its_run_save(job: Job, tmp_path: Path) -> None:
    def cancel(number: int, frame: FrameType | None) -> None:
        if job.arm.log.read_text().endswith("begun\n"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt  # as Ray does in the thread of a task

    before = signal.signal(signal.SIGALRM, cancel)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        ray_cluster._train(job, str(tmp_path))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert job.arm.log.read_text().splitlines()[-1] == "saved"
    assert job.arm.state == "missing"


class FakeRay:
    """As much of Ray as is asked of it, with tasks that are done when a test says so."""

    def __init__(self) -> None:
        self.done: set[str] = set()
        self.cancelled: list[str] = []
        self.asked: dict[str, Any] = {}

    def init(self, **options: Any) -> None:
        if options["address"] == "nowhere:1":
            raise ConnectionError("no answer")

    def remote(self, **asked: Any) -> Callable[[Any], Any]:
        self.asked = asked
        return lambda function: SimpleNamespace(remote=lambda job, directory: job.arm.name)

    def wait(self, tasks: list[str], timeout: float) -> tuple[list[str], list[str]]:
        assert timeout == 0
        return [t for t in tasks if t in self.done], [t for t in tasks if t not in self.done]

    def cancel(self, task: str) -> None:
        self.cancelled.append(task)


def test_what_is_asked_of_ray(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    launcher = ray_cluster.Ray(ray_cluster.Request(gpus=0.5, cpus=3))
    launcher.submit([job])
    assert (fake.asked["num_gpus"], fake.asked["num_cpus"]) == (0.5, 3)
    name = frozenset({job.arm.name})
    assert launcher.poll() == Standing(waiting=name, running=frozenset())
    job.arm.directory.mkdir(parents=True)
    with lock.Lock(job.arm.directory):
        assert launcher.poll() == Standing(waiting=frozenset(), running=name)
    launcher.stop(signal.SIGTERM)
    assert fake.cancelled == [job.arm.name]
    fake.done = {job.arm.name}
    assert launcher.poll().over


def test_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    with pytest.raises(RunError, match=r"--ray\.address is nowhere:1: no cluster can be joined there: no answer"):
        ray_cluster.Ray(ray_cluster.Request(address="nowhere:1"))
