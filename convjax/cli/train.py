"""`convjax train EXPERIMENT [--workdir DIR] [--model NAME] [--arm AXIS=NAME] [--FIELD VALUE ...]`."""

import shlex
import sys

from convjax.errors import UsageError
from convjax.train.interrupts import Interrupted, Interrupts

USAGE = """usage: convjax train EXPERIMENT [--workdir DIR] [--model NAME] [--arm AXIS=NAME] [--FIELD VALUE ...]

Trains the experiment that a Python file defines as `config`, or goes on with it where it stopped.
Each field of the configuration is a flag, such as --optim.lr 0.2 or --model.width 32;
--model NAME takes another of the models that `convjax models` lists;
--arm AXIS=NAME sets what the file's `axes` call by that name (see `convjax sweep`).
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

    file, parsed = experiment.parse("train", arguments)
    sources.require(parsed.config.data.name, directory=parsed.config.data.directory)
    from convjax import compiled
    from convjax.train import loop, processes
    from convjax.train.run import Run

    compiled.keep()
    processes.start(parsed.config.parallel)
    result = loop.train(parsed.config, Run(parsed.workdir), file, interrupts)
    chosen = f"checkpoint of step {result.checkpoint}"
    if result.validation is not None:
        chosen += f", best by validation accuracy ({100 * result.validation.accuracy:.2f} %)"
    if not processes.is_first():
        return
    print(f"run {parsed.workdir}: {chosen}")
    print(f"test accuracy {100 * result.test.accuracy:.2f} %")
