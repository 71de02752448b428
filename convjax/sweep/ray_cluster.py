"""Runs as tasks of a Ray cluster, whose machines see the sweep's directory under the same path."""

import dataclasses
import importlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convjax.errors import RunError, UsageError
from convjax.sweep.job import Job
from convjax.sweep.launch import Standing
from convjax.train import lock


@dataclasses.dataclass(frozen=True)
class Request:
    """What to ask Ray for, for each run."""

    address: str | None = None
    """Address of the cluster; None takes $RAY_ADDRESS, else a cluster that runs here, else starts one."""
    gpus: float = 0
    """GPUs a run; a part of one lets several runs share it."""
    cpus: float = 1
    """Processor cores a run."""


class Ray:
    """Hands jobs to a cluster."""

    interval = 1.0

    def __init__(self, request: Request) -> None:
        """Joins the cluster.

        Raises:
            UsageError: Ray is not installed.
            RunError: no cluster can be joined.
        """
        self._request = request
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise UsageError("--launcher ray needs Ray: pip install 'convjax[ray]'") from error
        try:
            self._ray.init(address=request.address, log_to_driver=False, ignore_reinit_error=True)
        except Exception as error:  # Ray raises many kinds, this one among them
            raise RunError(f"--ray.address is {request.address}: no cluster can be joined there: {error}") from error
        self._tasks: dict[str, tuple[Job, Any]] = {}

    def check(self, experiment: bytes) -> None:
        """Has nothing to object: no earlier run is still to read the experiment file."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Hands over all jobs; Ray starts them as there is room."""
        # A run that fails is to be seen, not tried again unseen; one whose machine died is tried once more.
        remote = self._ray.remote(max_retries=1, num_cpus=self._request.cpus, num_gpus=self._request.gpus)(_train)
        self._tasks = {job.arm.name: (job, remote.remote(job, str(Path.cwd()))) for job in jobs}

    def poll(self) -> Standing:
        """Asks which tasks are done."""
        for name, (_, task) in list(self._tasks.items()):
            done, _ = self._ray.wait([task], timeout=0)
            if done:
                del self._tasks[name]
        running = {name for name, (job, _) in self._tasks.items() if lock.held(job.arm.directory)}
        return Standing(frozenset(set(self._tasks) - running), frozenset(running))

    def stop(self, received: signal.Signals) -> None:
        """Cancels all tasks: those that run pass it on to their processes, which save a checkpoint."""
        for _, task in self._tasks.values():
            self._ray.cancel(task)

    def advice(self) -> str | None:
        """Returns None: stopping the sweep stops the runs."""
        return None


def _train(job: Job, directory: str) -> None:
    """Runs a job on a machine of the cluster; what is asked for there by cancelling comes as KeyboardInterrupt."""
    os.chdir(directory)
    while lock.held(job.arm.directory):  # a process that an earlier sweep has left behind
        time.sleep(1)
    if job.arm.state == "finished":
        return
    process = job.start({})
    while (code := process.poll()) is None:
        try:
            time.sleep(0.2)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
    job.ended(code)
