"""The command line of an experiment: its file, and its configuration's fields as flags."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from convjax.errors import UsageError
from convjax.train import experiment
from convjax.train.config import Config, model_fields


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Trains an experiment, or goes on with it where it stopped.

    --model NAME takes another of the models that `convjax models` lists.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    workdir: Path
    """Directory of the run."""


def parse(command: str, arguments: list[str]) -> tuple[Path, Arguments]:
    """Returns an experiment's file, and its configuration with what the flags change in it.

    Args:
        command: name of the subcommand, for the help.
        arguments: the file, then flags.

    Raises:
        UsageError: the file or a value is wrong.
    """
    file = Path(arguments[0])
    config, flags = with_model(experiment.load(file), arguments[1:])
    defaults = Arguments(config, workdir=Path("runs") / file.stem)
    return file, tyro.cli(Arguments, prog=f"convjax {command} {file}", args=flags, default=defaults)


def with_model(config: Config, arguments: list[str]) -> tuple[Config, list[str]]:
    """Takes `--model NAME` out of the arguments; the new model keeps class count and dtype of the old one.

    Raises:
        UsageError: there is no such model.
    """
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
