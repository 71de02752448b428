"""The command line of an experiment: its file, and its configuration's fields as flags."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from convjax.errors import UsageError
from convjax.train import experiment
from convjax.train.config import Config, model_fields
from convjax.train.experiment import Experiment


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
    return file, parse_flags(command, experiment.read(file), arguments[1:])


def parse_flags(command: str, read: Experiment, flags: Sequence[str]) -> Arguments:
    """Returns the configuration of an experiment that has been read, with what the flags change in it.

    Raises:
        UsageError: a value is wrong.
    """
    config, rest = with_model(read.config, list(flags))
    config, rest = with_arms(config, read, rest)
    defaults = Arguments(config, workdir=Path("runs") / read.path.stem)
    return tyro.cli(Arguments, prog=f"convjax {command} {read.path}", args=rest, default=defaults)


def with_model(config: Config, arguments: list[str]) -> tuple[Config, list[str]]:
    """Takes `--model NAME` out of the arguments; the new model keeps class count and dtype of the old one.

    Raises:
        UsageError: there is no such model.
    """
    names, rest = take("--model", "a name, one of those that `convjax models` lists", arguments)
    for name in names:
        # Building the table imports all families; most runs need but the experiment's own.
        from convjax import models

        shared = {k: v for k, v in model_fields(config.model).items() if k in ("num_classes", "dtype")}
        config = dataclasses.replace(config, model=models.create(name, **shared))
    return config, rest


def with_arms(config: Config, read: Experiment, arguments: list[str]) -> tuple[Config, list[str]]:
    """Takes each `--arm AXIS=NAME` out of the arguments, and sets what the experiment's axes say of it.

    Raises:
        UsageError: there is no such arm.
    """
    arms, rest = take("--arm", "AXIS=NAME, an axis of the experiment file and one of its arms", arguments)
    if arms:
        from convjax.sweep.axes import set_arms

        config = set_arms(config, read, arms)
    return config, rest


def take(flag: str, what: str, arguments: list[str]) -> tuple[list[str], list[str]]:
    """Returns the values of a flag that tyro does not know, and the other arguments."""
    values: list[str] = []
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name != flag:
            rest.append(argument)
            continue
        if not equals:
            value = next(remaining, "")
        if not value or value.startswith("-"):
            raise UsageError(f"{flag} needs {what}")
        values.append(value)
    return values, rest
