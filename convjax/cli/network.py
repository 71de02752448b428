"""The network that a command line names: a model, an experiment or a run."""

from pathlib import Path
from typing import Literal, NamedTuple

import tyro

from convjax.cli.experiment import with_model
from convjax.data import sources
from convjax.errors import UsageError, nearest
from convjax.models import MODELS
from convjax.train import experiment
from convjax.train.config import Config, TrainConfig
from convjax.train.run import Run


class Named(NamedTuple):
    """Attributes:
    kind: which of the three was named.
    config: its configuration; a model's is the default one but for the model.
    image: (height, width, channels) of its images: those that a model is published for, or those of the data.
    """

    kind: Literal["model", "experiment", "run"]
    config: Config
    image: tuple[int, int, int]


def named(command: str, name: str, flags: list[str], train: TrainConfig | None = None) -> Named:
    """Finds what a command line names, and changes in its configuration what flags say.

    Args:
        command: name of the subcommand, for the help.
        name: one of `convjax models`, a file, or a directory.
        flags: the rest of the command line.
        train: for a model, what flags change; None takes the defaults.

    Raises:
        UsageError: there is no such thing, its data are missing, or a flag is wrong.
    """
    target = Path(name)
    if name in MODELS:
        entry = MODELS[name]
        config = _changed(Config(entry.module, train=train or TrainConfig()), f"{command} {name}", flags)
        return Named("model", config, entry.image)
    if target.is_dir():
        if flags:
            raise UsageError(f"{flags[0]}: there is nothing to change in a run")
        return Named("run", Run(target).read_config(), Run(target).read_info().image)
    if target.suffix == ".py" or target.exists():
        config = _changed(experiment.load(target), f"{command} {target}", flags)
        return Named("experiment", config, _data_image(config))
    raise UsageError(
        f"{name} is neither an experiment's file, nor a run's directory, nor a model: {nearest(name, list(MODELS))}"
    )


def _changed(config: Config, command: str, flags: list[str]) -> Config:
    """Returns a configuration with what the flags change in it."""
    config, flags = with_model(config, flags)
    return tyro.cli(Config, prog=f"convjax {command}", args=flags, default=config)


def _data_image(config: Config) -> tuple[int, int, int]:
    """Returns the (height, width, channels) of an experiment's images."""
    data = config.data
    sources.require(data.name, directory=data.directory)
    height, width, channels = sources.image_shape(data.name, directory=data.directory, image_size=data.image_size)
    return height, width, channels
