"""A run's data: its splits, and what must be known of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from convjax.data import order, sources
from convjax.data.sources import Split
from convjax.data.survey import Survey, remembered, survey, survey_records
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


def load(
    name: str,
    *,
    directory: str | None,
    image_size: int | None,
    validation: float,
    examples: int | None = None,
    permute_pixels: int | None = None,
    lazy: bool = False,
) -> Splits:
    """Opens the data set and cuts the validation split from its train split.

    Args:
        name: see `convjax.data.sources.load`, as `directory`, `image_size`, `examples` and `permute_pixels`.
        directory: TFDS data directory.
        image_size: side in pixels.
        validation: share of the train split that becomes the validation split.
        examples: how many of the train split are taken.
        permute_pixels: seed of a permutation of the pixels.
        lazy: whether images stay on disk until they are asked for, but for the embedded sets. They are read through
            once for what must be known of them; see `convjax.data.survey.remembered`.

    Raises:
        UsageError: see `convjax.data.sources.load`; or a split would be empty.
    """
    if lazy and name not in sources.EMBEDDED:
        return _on_disk(name, directory, image_size, validation, examples, permute_pixels)
    source = sources.load(
        name, directory=directory, image_size=image_size, examples=examples, permute_pixels=permute_pixels
    )
    kept, cut = _cut(name, len(source.train), validation)
    splits = {"train": source.train.take(kept), "validation": source.train.take(cut), "test": source.test}
    image = source.train.images.shape[1:]
    surveys = {name: survey([(np.asarray(split.images), split.labels)], image) for name, split in splits.items()}
    return Splits(_info(source.name, source.version, source.class_names, surveys), splits)


def _on_disk(
    name: str,
    directory: str | None,
    image_size: int | None,
    validation: float,
    examples: int | None,
    permute_pixels: int | None,
) -> Splits:
    """Opens a data set of which only what is asked for is read into memory."""
    from convjax.data import tfds_source

    opened = tfds_source.open_records(
        name, directory=directory, image_size=image_size, examples=examples, permute_pixels=permute_pixels
    )
    kept, cut = _cut(name, len(opened.train), validation)
    records = {"train": opened.train.part(kept), "validation": opened.train.part(cut), "test": opened.test}
    key = f"{opened.identity} {image_size} {validation} {examples} {permute_pixels}"
    surveys = remembered(key, lambda: survey_records(name, records))
    splits = {name: Split(images, surveys[name].labels) for name, images in records.items()}
    return Splits(_info(opened.name, opened.version, opened.class_names, surveys), splits)


def _cut(name: str, examples: int, validation: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns which examples of a train split stay, and which are for validation."""
    kept, cut = order.cut(examples, validation)
    if not len(kept) or (validation and not len(cut)):
        raise UsageError(
            f"data.validation is {validation}: of {examples} examples in the train split of {name!r} it "
            f"leaves {len(kept)} for training and {len(cut)} for validation"
        )
    return kept, cut


def _info(name: str, version: str, class_names: tuple[str, ...], surveys: Mapping[str, Survey]) -> DataInfo:
    height, width, channels = surveys["train"].shape[1:]
    return DataInfo(
        name=name,
        version=version,
        image=(height, width, channels),
        class_names=class_names,
        examples={name: len(found.labels) for name, found in surveys.items()},
        normalise=statistics(surveys["train"].counts),
        fingerprint={name: found.fingerprint for name, found in surveys.items()},
    )


def statistics(counts: NDArray[np.int64]) -> Normalise:
    """Returns mean and standard deviation of each channel, exactly, from the counts `[C, 256]` of its values."""
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in counts:
        share = channel / channel.sum()
        mean.append(float(share @ values))
        std.append(float(np.sqrt(share @ (values - mean[-1]) ** 2)) or 1.0)
    return Normalise(tuple(mean), tuple(std))
