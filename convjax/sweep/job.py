"""One run of a sweep as a process: `convjax train`, as a user would type it, its output in a file."""

import contextlib
import dataclasses
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from convjax.sweep.record import Arm


@dataclasses.dataclass(frozen=True)
class Job:
    """Attributes:
    arm: the run.
    arguments: of `convjax train`.
    """

    arm: Arm
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, arm: Arm, experiment: Path, flags: Sequence[str]) -> "Job":
        """Returns the job that trains a run."""
        return cls(arm, (str(experiment), "--workdir", str(arm.directory), *flags))

    @property
    def line(self) -> str:
        """The command, to be repeated by hand."""
        return shlex.join(["convjax", "train", *self.arguments])

    @property
    def command(self) -> tuple[str, ...]:
        """The same command of this installation."""
        return (str(Path(sys.executable).with_name("convjax")), "train", *self.arguments)

    def start(self, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Starts the process; it gets no signal of the terminal, but those that are passed on to it.

        Args:
            environment: variables to set besides those of this process.

        Raises:
            OSError: it cannot be started, or its output not be written.
        """
        self.arm.exit.unlink(missing_ok=True)
        with self.arm.log.open("ab") as log:
            log.write(f"$ {self.line}\n".encode())
            log.flush()
            return subprocess.Popen(
                self.command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended(self, code: int) -> None:
        """Writes down what its process ended with.

        Raises:
            OSError: it cannot be written.
        """
        self.arm.exit.write_text(f"{code}\n")


@contextlib.contextmanager
def bound(cores: Sequence[int]) -> Iterator[None]:
    """Binds the processes that this thread starts meanwhile to cores; XLA makes as many threads as there are.

    Args:
        cores: none leave all.
    """
    before = os.sched_getaffinity(0) if cores else set()
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        if before:
            os.sched_setaffinity(0, before)
