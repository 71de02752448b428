"""Runs as the tasks of a SLURM array job.

The batch script is plain: it can be read, and submitted by hand. (submitit would have to be given a pickled
function, which a job then loads and runs, and would keep results in pickles of its own beside the run's
directory; all that a run needs is its command.)
"""

import dataclasses
import json
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from convjax.errors import RunError, UsageError
from convjax.sweep.job import Job
from convjax.sweep.launch import Standing
from convjax.sweep.record import COPY
from convjax.train.interrupts import exit_code

RECORD = "slurm.json"
"""In a sweep's directory: id of the array task by run."""
LARGEST_ARRAY = 1000
"""Tasks of an array that every cluster allows: SLURM's MaxArraySize is 1001 unless set otherwise."""
_SILENCE = 20
"""Questions in a row that SLURM may leave without an answer, as while its controller is started again."""
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_SCRIPT = """#!/bin/bash
{directives}
case $SLURM_ARRAY_TASK_ID in
{cases}esac
log={logs}/$name
rm -f "$log.exit"
echo "$ $line" >> "$log.txt"
before=$(ls {runs}/$name/checkpoints 2> /dev/null)
# When a job is preempted or requeued, SLURM sends SIGTERM to all of its processes: the shells must only not die of
# it. Before the time is over it sends SIGUSR1 to the first shell alone, which passes it on to all.
(
    trap : TERM USR1
    "${{command[@]}}" < /dev/null >> "$log.txt" 2>&1
    echo $? > "$log.exit" # a wait that a signal interrupts may lose it
) &
run=$!
trap : TERM
trap 'trap "" USR1; over=yes; kill -USR1 0' USR1
while kill -0 $run 2> /dev/null; do wait $run; done
code=$(cat "$log.exit")
if [[ $over && $code == {stopped} ]]; then
    if [[ $(ls {runs}/$name/checkpoints 2> /dev/null) != "$before" ]]; then
        scontrol requeue $SLURM_JOB_ID
    else
        echo "no step was saved before the time was over: a run needs more of it" >> "$log.txt"
    fi
fi
exit $code
"""


@dataclasses.dataclass(frozen=True)
class Request:
    """What to ask SLURM for, for each run."""

    partition: str | None = None
    """Partition; None takes the cluster's default."""
    gpus: int = 0
    """GPUs a run."""
    cpus: int = 1
    """Processor cores a run."""
    memory: str | None = None
    """Memory a run, such as 16G."""
    time: str | None = None
    """Longest time, such as 4:00:00; a run that needs more saves a checkpoint before and is queued again."""
    grace: int = 120
    """Seconds before the end of that time at which a run is told to save."""
    options: tuple[str, ...] = ()
    """Other options of sbatch, without dashes, such as account=vision constraint=a100."""

    def __post_init__(self) -> None:
        for name, least in (("gpus", 0), ("cpus", 1), ("grace", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"--slurm.{name} is {getattr(self, name)}: it must be at least {least}")

    def directives(self) -> Iterator[str]:
        """Yields options of sbatch."""
        given = {"partition": self.partition, "gpus": self.gpus or None, "mem": self.memory, "time": self.time}
        yield f"--cpus-per-task={self.cpus}"
        for name, value in given.items():
            if value is not None:
                yield f"--{name}={value}"
        if self.time is not None:
            yield f"--signal=B:USR1@{self.grace}"
        for option in self.options:
            yield f"--{option}"


def scripts(jobs: Sequence[Job], sweep: Path, request: Request, at_once: int | None) -> list[str]:
    """Returns batch scripts whose array tasks are the jobs, in order: one script unless there are very many.

    Args:
        jobs: what to run.
        sweep: directory of the sweep.
        request: what to ask for.
        at_once: tasks of a script to run at the same time; None for as many as the cluster gives.
    """
    place = sweep.absolute()
    parts = [jobs[first : first + LARGEST_ARRAY] for first in range(0, len(jobs), LARGEST_ARRAY)]
    return [_script(part, place, request, at_once) for part in parts]


def _script(jobs: Sequence[Job], sweep: Path, request: Request, at_once: int | None) -> str:
    directives = [
        f"--job-name={sweep.name}",
        f"--array=0-{len(jobs) - 1}" + ("" if at_once is None else f"%{at_once}"),
        f"--chdir={Path.cwd()}",
        f"--output={sweep}/logs/slurm-%A_%a.txt",
        "--open-mode=append",
        "--requeue",
        *request.directives(),
    ]
    cases = "".join(
        f"{number}) name={job.arm.name}\n   line={shlex.quote(job.line)}\n   command=({shlex.join(job.command)}) ;;\n"
        for number, job in enumerate(jobs)
    )
    return _SCRIPT.format(
        directives="\n".join(f"#SBATCH {shlex.quote(directive)}" for directive in directives),
        cases=cases,
        logs=shlex.quote(str(sweep / "logs")),
        runs=shlex.quote(str(sweep / "runs")),
        stopped=exit_code(signal.SIGUSR1),
    )


class Slurm:
    """Submits jobs as one array, and watches them in the queue."""

    interval = 3.0

    def __init__(self, sweep: Path, request: Request, at_once: int | None) -> None:
        """Prepares to submit.

        Raises:
            UsageError: there is no SLURM here.
        """
        if shutil.which("sbatch") is None:
            raise UsageError("there is no sbatch here: --launcher slurm needs a machine that submits to a cluster")
        self._sweep, self._request, self._at_once = sweep, request, at_once
        self._tasks: dict[str, str] = {}
        self._unanswered = 0
        self._last = Standing(frozenset(), frozenset())

    def queued(self) -> frozenset[str]:
        """Returns the names of the runs that an earlier command has submitted and that are still in the queue.

        Raises:
            RunError: SLURM does not answer.
        """
        states = _queue()
        return frozenset(name for name, task in self._recorded().items() if task in states)

    def check(self, experiment: bytes) -> None:
        """Makes sure that no task in the queue would find another experiment file than it was submitted with.

        Raises:
            UsageError: one would.
        """
        copy = self._sweep / COPY
        if copy.is_file() and copy.read_bytes() != experiment and (queued := self.queued()):
            raise UsageError(
                f"{len(queued)} runs of {self._sweep} are in the queue, and the experiment file is no longer what "
                f"{copy} is: wait for them, end them by scancel, or take another --workdir"
            )

    def submit(self, jobs: Sequence[Job]) -> None:
        """Submits the jobs that are not in the queue yet.

        Raises:
            RunError: SLURM refuses them.
        """
        queued, recorded = self.queued(), self._recorded()
        new = [job for job in jobs if job.arm.name not in queued]
        for number, text in enumerate(scripts(new, self._sweep, self._request, self._at_once)):
            (self._sweep / "logs" / f"slurm-{number}.sh").write_text(text)
            array = _ask("sbatch", "--parsable", given=text).split(";")[0].strip()
            part = new[number * LARGEST_ARRAY :][:LARGEST_ARRAY]
            recorded |= {job.arm.name: f"{array}_{task}" for task, job in enumerate(part)}
            (self._sweep / RECORD).write_text(json.dumps(recorded, indent=2) + "\n")
        self._tasks = {job.arm.name: recorded[job.arm.name] for job in jobs}

    def poll(self) -> Standing:
        """Asks SLURM which tasks wait and which run.

        Raises:
            RunError: SLURM has not answered for long.
        """
        try:
            states = _queue()
        except RunError:
            self._unanswered += 1
            if self._unanswered > _SILENCE:
                raise
            return self._last
        self._unanswered = 0
        waiting = {name for name, task in self._tasks.items() if states.get(task, "") in _WAITING}
        running = {name for name, task in self._tasks.items() if task in states} - waiting
        self._last = Standing(frozenset(waiting), frozenset(running))
        return self._last

    def stop(self, received: signal.Signals) -> None:
        """Leaves the jobs to SLURM."""

    def advice(self) -> str | None:
        """Tells that the jobs go on, and how to end them."""
        ids = sorted({task.partition("_")[0] for task in self._tasks.values()})
        return f"the jobs go on, without being watched (scancel {' '.join(ids)} ends them)"

    def _recorded(self) -> dict[str, str]:
        path = self._sweep / RECORD
        return dict(json.loads(path.read_text())) if path.is_file() else {}


def _queue() -> Mapping[str, str]:
    """Returns the state of each of this user's tasks that have not ended, by their ids."""
    lines = _ask("squeue", "--me", "--noheader", "--array", "--format=%i %T").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line.strip())


def _ask(*command: str, given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"{command[0]} fails: {done.stderr.strip()}")
    return done.stdout
