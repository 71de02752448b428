"""`convjax train EXPERIMENT [--workdir DIR] [--model NAME] [--FIELD VALUE ...]`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from convjax.data import sources
from convjax.errors import UsageError
from convjax.train import experiment
from convjax.train.config import Config, model_fields
from convjax.train.run import Run

USAGE = """usage: convjax train EXPERIMENT [--workdir DIR] [--model NAME] [--FIELD VALUE ...]

Trains the experiment that a Python file defines as `config`, or goes on with it where it stopped.
Each field of the configuration is a flag, such as --optim.lr 0.2 or --model.width 32;
--model NAME takes another of the models that `convjax models` lists.
convjax train EXPERIMENT --help lists the flags with the experiment's values."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Trains an experiment, or goes on with it where it stopped.

    --model NAME takes another of the models that `convjax models` lists.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    workdir: Path
    """Directory of the run."""


def run(arguments: list[str]) -> None:
    """Trains, and prints where the run lies and its test accuracy."""
    if not arguments or arguments[0] in ("-h", "--help"):
        if arguments:
            print(USAGE)
            return
        raise UsageError(f"train needs an experiment file\n{USAGE}")
    if arguments[0].startswith("-"):
        raise UsageError(f"the experiment file comes first, then flags such as {arguments[0]}\n{USAGE}")
    file = Path(arguments[0])
    config, flags = _with_model(experiment.load(file), arguments[1:])
    parsed = tyro.cli(
        Arguments,
        prog=f"convjax train {file}",
        args=flags,
        default=Arguments(config, workdir=Path("runs") / file.stem),
    )

    # Orbax and TensorBoard take seconds to import: not before flags and data are known to be right.
    sources.require(parsed.config.data.name, directory=parsed.config.data.directory)
    from convjax.train import loop

    result = loop.train(parsed.config, Run(parsed.workdir), file)
    chosen = f"checkpoint of step {result.checkpoint}"
    if result.validation is not None:
        chosen += f", best by validation accuracy ({100 * result.validation.accuracy:.2f} %)"
    print(f"run {parsed.workdir}: {chosen}")
    print(f"test accuracy {100 * result.test.accuracy:.2f} %")


def _with_model(config: Config, arguments: list[str]) -> tuple[Config, list[str]]:
    """Takes `--model NAME` out of the arguments; the new model keeps class count and dtype of the old one."""
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name != "--model":
            rest.append(argument)
            continue
        if not equals:
            value = next(remaining, "")
        if not value or value.startswith("-"):
            raise UsageError("--model needs a name, one of those that `convjax models` lists")
        # Building the table imports all families; most runs need but the experiment's own.
        from convjax import models

        shared = {k: v for k, v in model_fields(config.model).items() if k in ("num_classes", "dtype")}
        config = dataclasses.replace(config, model=models.create(value, **shared))
    return config, rest
