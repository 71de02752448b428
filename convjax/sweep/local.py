"""Processes on this machine, several at once."""

import signal
import subprocess
from collections.abc import Sequence

from convjax.errors import RunError
from convjax.sweep.job import Job, bound
from convjax.sweep.launch import Standing
from convjax.sweep.resources import Share
from convjax.train import lock


class Local:
    """Runs as many jobs at once as there are shares of the machine."""

    interval = 0.1

    def __init__(self, shares: Sequence[Share]) -> None:
        self._free = list(shares)
        self._waiting: list[Job] = []
        self._running: dict[str, tuple[Job, subprocess.Popen[bytes], Share]] = {}

    def check(self, experiment: bytes) -> None:
        """Has nothing to object: no earlier run is still to read the experiment file."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Takes jobs, also more of them later; `poll` starts them."""
        self._waiting += jobs

    def poll(self) -> Standing:
        """Looks which processes have ended, and starts others in their place.

        Raises:
            RunError: one cannot be started.
        """
        for name, (job, process, share) in list(self._running.items()):
            if (code := process.poll()) is not None:
                job.ended(code)
                del self._running[name]
                self._free.append(share)
        for job in list(self._waiting):
            if not self._free:
                break
            # A sweep that was killed leaves processes behind, which go on.
            if any(lock.held(arm.directory) for arm in job.arms):
                continue
            self._waiting.remove(job)
            if any(arm.state != "finished" for arm in job.arms):
                share = self._free.pop(0)
                self._running[job.arm.name] = job, self._start(job, share), share
        return Standing(_names(self._waiting), _names([job for job, _, _ in self._running.values()]))

    def stop(self, received: signal.Signals) -> None:
        """Passes the signal on: a run saves a checkpoint at the first one, and ends at once at the second."""
        self._waiting = []
        for _, process, _ in self._running.values():
            if process.poll() is None:
                process.send_signal(received)

    def stop_run(self, name: str, received: signal.Signals) -> None:
        """Passes a signal on to one run, if it is still at work."""
        if name in self._running and self._running[name][1].poll() is None:
            self._running[name][1].send_signal(received)

    def advice(self) -> str | None:
        """Returns None: stopping the sweep stops the runs."""
        return None

    def _start(self, job: Job, share: Share) -> "subprocess.Popen[bytes]":
        try:
            with bound(share.cores):
                return job.start(share.environment)
        except OSError as error:
            raise RunError(f"{job.line} cannot be started: {error}") from error


def _names(jobs: Sequence[Job]) -> frozenset[str]:
    return frozenset(arm.name for job in jobs for arm in job.arms)
