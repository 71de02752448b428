"""`convjax train EXPERIMENT [--workdir DIR] [--model NAME] [--arm AXIS=NAME] [--FIELD VALUE ...]`."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from convjax.errors import RunError, UsageError
from convjax.train.interrupts import Interrupted, Interrupts

if TYPE_CHECKING:
    from convjax.cli.experiment import Arguments
    from convjax.train.config import Config
    from convjax.train.result import Result
    from convjax.train.run import Run

USAGE = """usage: convjax train EXPERIMENT [--workdir DIR] [--model NAME] [--arm AXIS=NAME] [--also SEED=DIR]
                     [--FIELD VALUE ...]

Trains the experiment that a Python file defines as `config`, or goes on with it where it stopped.
Each field of the configuration is a flag, such as --optim.lr 0.2 or --model.width 32;
--model NAME takes another of the models that `convjax models` lists;
--arm AXIS=NAME sets what the file's `axes` call by that name (see `convjax sweep`).
--also SEED=DIR trains another seed at once, as one program, into a directory of its own: faster where a step is tiny
(see --seeds-at-once of `convjax sweep`); it may be given several times.
convjax train EXPERIMENT --help lists the flags with the experiment's values.

SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 save a checkpoint and stop; a second one stops at once.
The same command goes on from the last checkpoint, to the same bits as if nothing had stopped it."""


def run(arguments: list[str]) -> None:
    """Trains, and prints where the run lies and its test accuracy."""
    if not arguments or arguments[0] in ("-h", "--help"):
        if arguments:
            print(USAGE)
            return
        raise UsageError(f"train needs an experiment file\n{USAGE}")
    if arguments[0].startswith("-"):
        raise UsageError(f"the experiment file comes first, then flags such as {arguments[0]}\n{USAGE}")
    command = shlex.join(["convjax", "train", *arguments])
    with Interrupts(f"go on with: {command}") as interrupts:
        try:
            _train(arguments, interrupts)
        except Interrupted as stopped:
            print(f"convjax: {stopped}; go on with: {command}", file=sys.stderr)
            sys.exit(stopped.exit_code)


def _train(arguments: list[str], interrupts: Interrupts) -> None:
    # All that takes long to import comes now that signals are looked after: JAX here, and Orbax and TensorBoard
    # once flags and data are known to be right.
    from convjax.cli import experiment
    from convjax.data import sources

    also, arguments = experiment.take("--also", "SEED=DIR, a seed and the directory of its run", arguments)
    file, parsed = experiment.parse("train", arguments)
    sources.require(parsed.config.data.name, directory=parsed.config.data.directory)
    from convjax import compiled
    from convjax.train import loop, processes
    from convjax.train.run import Run

    others = _others(also, parsed)
    compiled.keep()
    processes.start(parsed.config.parallel)
    run = Run(parsed.workdir)
    if others:
        _train_together(parsed.config, {parsed.config.seed: run, **others}, file, interrupts)
        return
    result = loop.train(parsed.config, run, file, interrupts)
    if processes.is_first():
        _tell(run, result)


def _train_together(config: "Config", runs: "dict[int, Run]", file: Path, interrupts: Interrupts) -> None:
    """Trains several seeds at once, and tells what each has ended with.

    Raises:
        Interrupted: a signal stopped some of them.
        RunError: some have failed.
    """
    from convjax.train import together
    from convjax.train.result import Result

    ends = together.train(config, runs, file, interrupts)
    failed = []
    for seed, end in ends.items():
        if isinstance(end, Result):
            _tell(runs[seed], end)
        elif isinstance(end, Interrupted):
            print(f"convjax: seed {seed}: {end}", file=sys.stderr)
        else:
            failed.append(seed)
            print(f"convjax: seed {seed} failed: {end}", file=sys.stderr)
    for end in ends.values():
        if isinstance(end, Interrupted):
            raise end
    if failed:
        raise RunError(f"{len(failed)} of {len(runs)} seeds: {' '.join(map(str, sorted(failed)))}")


def _tell(run: "Run", result: "Result") -> None:
    """Prints where a run lies, and its test accuracy."""
    chosen = f"checkpoint of step {result.checkpoint}"
    if result.validation is not None:
        chosen += f", best by validation accuracy ({100 * result.validation.accuracy:.2f} %)"
    print(f"run {run.path}: {chosen}")
    print(f"test accuracy {100 * result.test.accuracy:.2f} %")


def _others(also: list[str], first: "Arguments") -> "dict[int, Run]":
    """Returns the runs of the seeds that are to be trained at once with the first.

    Raises:
        UsageError: what was given is no seed and directory, or one is given twice.
    """
    from convjax.train.run import Run

    others: dict[int, Run] = {}
    directories = {first.workdir.resolve()}
    for text in also:
        seed, equals, directory = text.partition("=")
        if not (seed.isdecimal() and int(seed) < 2**32 and equals and directory):
            raise UsageError(f"--also is {text!r}: it must be SEED=DIR, as 1=runs/second")
        if int(seed) in (first.config.seed, *others):
            raise UsageError(f"--also: seed {seed} is given twice")
        if Path(directory).resolve() in directories:
            raise UsageError(f"--also: directory {directory} is given twice")
        directories.add(Path(directory).resolve())
        others[int(seed)] = Run(Path(directory))
    return others
