"""What is profiled: an experiment with its data, or a model alone on images of noise."""

import dataclasses
from typing import Any, cast

import numpy as np

from convjax.data.sources import Split
from convjax.data.splits import DataInfo, Normalise, Splits
from convjax.errors import UsageError
from convjax.train.config import Config
from convjax.train.evaluate import load_data


@dataclasses.dataclass(frozen=True)
class Subject:
    """Attributes:
    config: the configuration; one process, and jit or shard_map.
    data: its splits, of which `train` is used.
    is_noise: whether the images are none of a data set.
    """

    config: Config
    data: Splits
    is_noise: bool

    def __post_init__(self) -> None:
        parallel = self.config.parallel
        if parallel.mode == "pmap":
            raise UsageError("parallel.mode is pmap: to be profiled it must be jit or shard_map")
        if parallel.coordinator is not None:
            raise UsageError(f"parallel.coordinator is {parallel.coordinator}: one process alone can be profiled")


def experiment(config: Config) -> Subject:
    """Returns an experiment, its data read.

    Raises:
        UsageError: there are no such data, or the configuration is none that can be profiled.
    """
    return Subject(config, load_data(config), is_noise=False)


def model(config: Config, image: tuple[int, int, int]) -> Subject:
    """Returns a configuration's model on images of noise of (height, width, channels), one batch of them."""
    count, classes = config.train.batch_size, int(cast(Any, config.model).num_classes)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *image)).astype(np.uint8)
    labels = rng.integers(0, classes, count).astype(np.int32)
    channels = image[2]
    info = DataInfo(
        name="noise",
        version="",
        image=image,
        class_names=tuple(map(str, range(classes))),
        examples={"train": count, "validation": 0, "test": 0},
        normalise=Normalise((0.5,) * channels, (0.25,) * channels),
        fingerprint={},
    )
    return Subject(config, Splits(info, {"train": Split(images, labels)}), is_noise=True)
