"""`convjax sweep EXPERIMENT [AXIS=VALUE,... ...] [--workdir DIR] [--jobs N] [--launcher L] [--FIELD VALUE ...]`."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.table import Table

from convjax.cli import compare as comparing
from convjax.cli import search as searching
from convjax.cli.console import console
from convjax.errors import UsageError
from convjax.sweep import ray_cluster
from convjax.sweep import slurm as slurm_cluster
from convjax.train.interrupts import exit_code

if TYPE_CHECKING:
    from convjax.sweep.check import Checked
    from convjax.sweep.job import Job
    from convjax.sweep.launch import Launcher
    from convjax.sweep.record import Sweep
    from convjax.sweep.resources import Share

USAGE = "convjax sweep EXPERIMENT [AXIS=VALUE,VALUE ...] [--workdir DIR] [--jobs N] [--FIELD VALUE ...]"


@dataclasses.dataclass(frozen=True)
class Options:
    """Trains an experiment in every combination of what varies.

    What varies are the axes that its file defines as `axes`, and those given after the file, such as
    optim.lr=0.03,0.1 or seed=0..4 or model=resnet20,plain20; of a file's arms, AXIS=NAME,NAME takes some.
    Other flags are those of `convjax train`, which lists them (convjax train EXPERIMENT --help), and hold for all
    runs, such as --train.length "5 epochs".

    Started again, the same command trains what is missing or has failed, and nothing twice. A signal, as that of
    Ctrl-C, is passed on to the runs, which save a checkpoint and stop.
    """

    workdir: Path | None = None
    """Directory of the sweep; None takes sweeps/ and the experiment's name."""
    jobs: int | None = None
    """Runs at once; None takes one for each accelerator, one on a machine without, all on a cluster."""
    launcher: Literal["local", "slurm", "ray"] = "local"
    """Processes on this machine, an array job of SLURM, or tasks of a Ray cluster."""
    seeds_at_once: bool = False
    """Train runs that differ in the seed alone in one process, as one program. That pays on a CPU for perceptrons and
    LeNet-5, where starting, compiling and calling cost most; other convolutions take longer so (docs/sweeps.md)."""
    dry_run: bool = False
    """List the runs, with the time that they will take by a few timed steps on this machine, and start none."""
    print_only: bool = False
    """Print what would be started: the runs' commands, or the batch script of SLURM."""
    compare: bool = False
    """Compare the arms at the end, as `convjax compare` does."""
    search: Annotated[searching.Request, tyro.conf.arg(name="")] = searching.Request()
    slurm: slurm_cluster.Request = slurm_cluster.Request()
    ray: ray_cluster.Request = ray_cluster.Request()

    def __post_init__(self) -> None:
        if self.compare and (self.dry_run or self.print_only or self.search.sampler is not None):
            raise UsageError(
                "--compare is of runs that are finished, and of seeds: leave out --dry-run, --print-only and --sampler"
            )
        if self.seeds_at_once and (self.launcher != "local" or self.dry_run or self.search.sampler is not None):
            raise UsageError(
                "--seeds-at-once is for processes on this machine: leave out --launcher, --sampler, and --dry-run, "
                "which times runs one by one"
            )
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"--jobs is {self.jobs}: it must be at least 1")
        if self.search.sampler is not None and (self.launcher != "local" or self.dry_run or self.print_only):
            raise UsageError(
                "a search runs on this machine, and knows its runs only as it goes on: leave out --launcher, --dry-run "
                "and --print-only; several machines search together by one --storage"
            )


def run(arguments: list[str]) -> None:
    """Runs a sweep, or lists what it would be."""
    if not arguments:
        raise UsageError(f"sweep needs an experiment file\nusage: {USAGE}")
    if arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"):
        raise UsageError(
            f"the experiment file comes first, then axes, then flags such as {arguments[0]}\nusage: {USAGE}"
        )
    first = next((i for i, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    options, flags = tyro.cli(
        Options, prog="convjax sweep EXPERIMENT", args=arguments[first:], return_unknown_args=True
    )
    file = Path(arguments[0])
    path = options.workdir or Path("sweeps") / file.stem

    if options.search.sampler is not None:
        searching.run(options.search, file, path, arguments[1:first], flags, _shares(options))
        return
    # Before JAX has threads of its own: Ray forks where it starts a cluster.
    launcher = None if options.dry_run or options.print_only else _launcher(path, options)
    from convjax.sweep import check, conduct, seeds
    from convjax.sweep.job import Job
    from convjax.sweep.record import COPY, Arm, Sweep, axes_of

    check.on_cpu()
    conduct.check(path)
    content = file.read_bytes() if file.is_file() else b""
    checked = _checked(file, arguments[1:first], flags, options)
    if file.read_bytes() != content:
        raise UsageError(f"{file} has changed while the sweep was being checked: start again")
    arms = tuple(Arm.of(path, each.digest, each.trial.settings) for each in checked)
    sweep = Sweep(path, str(file), axes_of(arms), arms)
    left = [(arm, each) for arm, each in zip(arms, checked, strict=True) if arm.state != "finished"]
    jobs = [Job.of(arm, path / COPY, each.trial.flags) for arm, each in left]
    if options.seeds_at_once:
        seeds.check(checked)
        jobs = seeds.joined(jobs, [each for _, each in left])
    if options.dry_run:
        _list(sweep, checked, options, file)
    elif launcher is None:
        _print(sweep, jobs, options)
    else:
        command = shlex.join(["convjax", "sweep", *arguments])
        steps = {arm.name: each.plan.steps for arm, each in zip(arms, checked, strict=True)}
        _run(sweep, content, jobs, steps, launcher, command, compares=options.compare)


def _checked(file: Path, given: Sequence[str], flags: Sequence[str], options: Options) -> "list[Checked]":
    """Returns all runs of the sweep, checked."""
    from convjax.cli.experiment import parse_flags
    from convjax.sweep import axes, check, trials
    from convjax.sweep.resources import Machine
    from convjax.train import experiment

    read = experiment.read(file)
    varied = axes.override(axes.of_file(read), [axes.of_command(text, read) for text in given])
    if not varied:
        raise UsageError(f"nothing varies: {file} defines no `axes`, and none is given, such as seed=0..4")
    combinations = trials.expand(
        list(varied.values()), flags, lambda flags: parse_flags("sweep", read, flags).config, read.keep
    )
    here = options.launcher == "local" and not Machine.here().accelerators
    return check.check(combinations, file, here=here)


def _list(sweep: "Sweep", checked: "list[Checked]", options: Options, file: Path) -> None:
    """Prints the runs, and how long they will take."""
    from convjax.sweep import estimate

    shares = _shares(options)
    paces: dict[str, estimate.Pace] = {}
    for each in checked:
        if each.trial.shape not in paces:
            print(f"timing a few steps of {each.trial}", file=sys.stderr)
            paces[each.trial.shape] = estimate.pace(each, file, shares[0])
    table = Table("run", *sweep.axes, "steps", "state", "time", box=None, header_style="bold")
    left = []
    for arm, each in zip(sweep.runs, checked, strict=True):
        seconds = paces[each.trial.shape].seconds(each)
        if arm.state != "finished":
            left.append(seconds)
        settings = (str(value) for value in arm.settings.values())
        table.add_row(arm.name, *settings, f"{each.plan.steps:,}", arm.state, _time(seconds))
    console().print(table)
    runs = f"{len(checked)} runs, {len(left)} of them to be done"
    print(f"{runs}, {len(shares)} at once on this machine: about {_time(estimate.makespan(left, len(shares)))}")


def _print(sweep: "Sweep", jobs: "list[Job]", options: Options) -> None:
    """Prints what would be started."""
    if options.launcher == "slurm":
        for script in slurm_cluster.scripts(jobs, sweep.path, options.slurm, options.jobs):
            print(script)
    else:
        print("\n".join(job.line for job in jobs))


def _run(
    sweep: "Sweep",
    experiment: bytes,
    jobs: "list[Job]",
    steps: dict[str, int],
    launcher: "Launcher",
    command: str,
    *,
    compares: bool,
) -> None:
    """Runs what is not finished, and compares what is then, if asked for."""
    from convjax.sweep import conduct
    from convjax.sweep.live import View

    launcher.check(experiment)
    with conduct.writing(sweep, experiment):
        if strangers := conduct.strangers(sweep):
            print(f"{len(strangers)} runs in {sweep.path / 'runs'} are of other settings, and no part of this sweep")
        try:
            with View(sweep.runs, steps, console()) as view:
                conduct.conduct(jobs, launcher, view)
        except conduct.Stopped as stopped:
            print(f"convjax: {stopped}; go on with: {command}", file=sys.stderr)
            sys.exit(exit_code(stopped.signal))
        # Before failed runs are told of, which end the command: some may have diverged, and that is a finding.
        if compares and any(arm.state == "finished" for arm in sweep.runs):
            comparing.run([str(sweep.path)])
        conduct.require_finished(sweep.runs)
        print(f"{sweep.path}: all {len(sweep.runs)} runs are finished")


def _launcher(path: Path, options: Options) -> "Launcher":
    if options.launcher == "slurm":
        return slurm_cluster.Slurm(path, options.slurm, options.jobs)
    if options.launcher == "ray":
        return ray_cluster.Ray(options.ray)
    from convjax.sweep.local import Local

    return Local(_shares(options))


def _shares(options: Options) -> "Sequence[Share]":
    """Returns the parts of this machine that runs have which are started here."""
    from convjax.sweep.resources import Machine

    machine = Machine.here()
    return machine.divide(options.jobs or len(machine.accelerators) or 1)


def _time(seconds: float) -> str:
    """Returns a time as `45 s`, `12 min` or `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
