"""Runs of a sweep as a process: `convjax train`, as a user would type it, its output in a file."""

import contextlib
import dataclasses
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from convjax.errors import RunError
from convjax.sweep.record import Arm
from convjax.train.run import Run


@dataclasses.dataclass(frozen=True)
class Job:
    """Attributes:
    arm: the run.
    arguments: of `convjax train`.
    others: runs of other seeds that the same process trains.
    """

    arm: Arm
    arguments: tuple[str, ...]
    others: tuple[Arm, ...] = ()

    @classmethod
    def of(cls, arm: Arm, experiment: Path, flags: Sequence[str]) -> "Job":
        """Returns the job that trains a run."""
        return cls(arm, (str(experiment), "--workdir", str(arm.directory), *flags))

    def with_seeds(self, others: Mapping[int, Arm]) -> "Job":
        """Returns the job that trains runs of other seeds, too, as one program."""
        also = (text for seed, arm in others.items() for text in ("--also", f"{seed}={arm.directory}"))
        return Job(self.arm, (*self.arguments, *also), tuple(others.values()))

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All runs that its process trains."""
        return (self.arm, *self.others)

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
        for arm in self.arms:
            arm.exit.unlink(missing_ok=True)
        for arm in self.others:
            _add(arm, f"$ {self.line}\n(trained at once with others: {self.arm.log} has the output of all)")
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
        """Writes down what its process ended with, for each run.

        Raises:
            OSError: it cannot be written.
        """
        for arm in self.arms:
            arm.exit.write_text(f"{_code(arm, code) if self.others else code}\n")
        for arm in self.others:
            if reason := _failure(arm):
                _add(arm, f"convjax: failed: {reason}")


def _add(arm: Arm, text: str) -> None:
    with arm.log.open("a") as log:
        log.write(f"{text}\n")


def _code(arm: Arm, code: int) -> int:
    """Returns what a process of its own would have ended with, for one of the runs of a process that ended so."""
    if (arm.directory / "result.json").is_file():
        return 0
    return 1 if _failure(arm) else code


def _failure(arm: Arm) -> str | None:
    """Returns what a run has failed of, as it has written it down itself; None if it has not."""
    try:
        return str(Run(arm.directory).read_json("failure.json")["error"])
    except RunError:
        return None


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
