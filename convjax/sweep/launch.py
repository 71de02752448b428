"""What launchers have in common: they take jobs, tell how these stand, and pass a signal on."""

import dataclasses
import signal
from collections.abc import Sequence
from typing import Protocol

from convjax.sweep.job import Job


@dataclasses.dataclass(frozen=True)
class Standing:
    """Names of the runs (see `Arm.name`) that have not ended.

    Attributes:
        waiting: not begun yet.
        running: at work.
    """

    waiting: frozenset[str]
    running: frozenset[str]

    @property
    def over(self) -> bool:
        return not (self.waiting or self.running)


class Launcher(Protocol):
    """Runs jobs somewhere."""

    interval: float
    """Seconds between two looks that do no harm."""

    def check(self, experiment: bytes) -> None:
        """Makes sure that the content of the experiment file may take the place of what there is.

        Raises:
            UsageError: runs that are still to read it would find another than they were given.
        """
        ...

    def submit(self, jobs: Sequence[Job]) -> None:
        """Takes jobs, to be called once.

        Raises:
            RunError: they cannot be taken.
        """
        ...

    def poll(self) -> Standing:
        """Starts what can be started, and tells what has not ended."""
        ...

    def stop(self, received: signal.Signals) -> None:
        """Begins nothing more, and passes a signal on; `poll` tells when all have ended."""
        ...

    def advice(self) -> str | None:
        """Returns what to tell whoever stops the sweep; None if that stops the runs, which is to be waited for."""
        ...
