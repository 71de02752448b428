"""A run's data: its splits, and what must be known of them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from convjax.data import order, sources
from convjax.data.sources import Split
from convjax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Normalise:
    """Turns uint8 pixels into float32 with the train split's mean 0 and deviation 1 a channel.

    Attributes:
        mean: mean of each channel, in units of the full range 0..1.
        std: standard deviation of each channel, likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: jax.Array) -> jax.Array:
        mean, std = jnp.asarray(self.mean, jnp.float32), jnp.asarray(self.std, jnp.float32)
        return (images.astype(jnp.float32) / 255 - mean) / std


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What must be known of a run's data to use its network.

    Attributes:
        name: the data set.
        version: its version.
        image: (height, width, channels).
        class_names: name of each class.
        examples: number of examples by split.
        normalise: by the statistics of the train split, or as the weights expect that the run began with.
        fingerprint: digest of each split's images and labels.
    """

    name: str
    version: str
    image: tuple[int, int, int]
    class_names: tuple[str, ...]
    examples: dict[str, int]
    normalise: Normalise
    fingerprint: dict[str, str]

    def same_data(self, other: "DataInfo") -> bool:
        """Says whether the data are the same, however they are normalised."""
        return self == dataclasses.replace(other, normalise=self.normalise)

    @classmethod
    def from_json(cls, json: dict[str, Any]) -> "DataInfo":
        return cls(
            name=json["name"],
            version=json["version"],
            image=tuple(json["image"]),
            class_names=tuple(json["class_names"]),
            examples=json["examples"],
            normalise=Normalise(tuple(json["normalise"]["mean"]), tuple(json["normalise"]["std"])),
            fingerprint=json["fingerprint"],
        )


@dataclasses.dataclass(frozen=True)
class Splits:
    """A run's data: its description, and the splits by the names `train`, `validation` and `test`."""

    info: DataInfo
    splits: dict[str, Split]

    def normalised(self, normalise: Normalise) -> "Splits":
        """Returns the same splits, normalised otherwise."""
        return dataclasses.replace(self, info=dataclasses.replace(self.info, normalise=normalise))


def load(name: str, *, directory: str | None, image_size: int | None, validation: float) -> Splits:
    """Reads the data set and cuts the validation split from its train split.

    Args:
        name: see `convjax.data.sources.load`, as `directory` and `image_size`.
        directory: TFDS data directory.
        image_size: side in pixels.
        validation: share of the train split that becomes the validation split.

    Raises:
        UsageError: see `convjax.data.sources.load`; or a split would be empty.
    """
    source = sources.load(name, directory=directory, image_size=image_size)
    kept, cut = order.cut(len(source.train), validation)
    if not len(kept) or (validation and not len(cut)):
        raise UsageError(
            f"data.validation is {validation}: of {len(source.train)} examples in the train split of {name!r} it "
            f"leaves {len(kept)} for training and {len(cut)} for validation"
        )
    splits = {"train": source.train.take(kept), "validation": source.train.take(cut), "test": source.test}
    images = splits["train"].images
    info = DataInfo(
        name=source.name,
        version=source.version,
        image=images.shape[1:],
        class_names=source.class_names,
        examples={name: len(split) for name, split in splits.items()},
        normalise=statistics(images),
        fingerprint={name: split.fingerprint() for name, split in splits.items()},
    )
    return Splits(info, splits)


def statistics(images: NDArray[np.uint8]) -> Normalise:
    """Returns mean and standard deviation of each channel, exactly, from the counts of its 256 values."""
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in range(images.shape[-1]):
        share = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
        mean.append(float(share @ values))
        std.append(float(np.sqrt(share @ (values - mean[-1]) ** 2)) or 1.0)
    return Normalise(tuple(mean), tuple(std))
