"""A run's data: its splits, and what must be known of them."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from convjax.data import order, sources
from convjax.data.few import ALL, Few
from convjax.data.images import WHOLE, Crop, in_order
from convjax.data.kept import kept
from convjax.data.opened import Opened
from convjax.data.records import Piece, Records, Training
from convjax.data.sources import Split
from convjax.data.survey import Survey, remembered, survey, survey_records
from convjax.errors import UsageError

Labels: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.int32]]
"""Returns the labels of some examples."""

_BROKEN_SHOWN = 10
"""Broken images that a message names."""

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Normalise:
    """Turns uint8 pixels into float32 with the train split's mean 0 and deviation 1 a channel.

    Attributes:
        mean: mean of each channel, in units of the full range 0..1.
        std: standard deviation of each channel, likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @jax.named_scope("normalise")
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
    few: Few = ALL,
    lazy: bool = False,
    crop: Crop = WHOLE,
    training: Training | None = None,
    broken_limit: int = 0,
) -> Splits:
    """Opens the data set and cuts the validation split from its train split, unless it has one.

    Args:
        name: see `convjax.data.sources.load`, as `directory` and `image_size`.
        directory: TFDS data directory, or where a relative path begins.
        image_size: side in pixels.
        validation: share of the train split that becomes the validation split.
        examples: how many of the train split are taken, see `convjax.data.order.part`; None takes all.
        few: what is kept of the splits then.
        lazy: whether images stay on disk until they are asked for, but for the embedded sets. They are read through
            once for what must be known of them; see `convjax.data.survey.remembered`.
        crop: the part of an image that evaluation sees; the embedded sets are seen whole.
        training: the part that training sees, if that is another one; needs `lazy`.
        broken_limit: how many images may be broken, and are left out.

    Raises:
        UsageError: see `convjax.data.sources.load`; a split would be empty, or have too few for `few`; or too many
            images are broken.
    """
    asked = _Asked(image_size, validation, examples, few, crop, training, broken_limit)
    if name not in sources.EMBEDDED:
        opened = sources.open_records(name, directory=directory, image_size=image_size, crop=crop)
        return _of_records(opened, asked, lazy)
    if training is not None:
        raise UsageError(f"data.resized_crop.area is {training.crop.area}: {name} has no larger images to cut from")
    if crop.share != 1:
        raise UsageError(f"data.crop.share is {crop.share}: {name} is seen whole, leave it at 1")
    source = sources.load(name, directory=directory, image_size=image_size)

    def part(split: str, whole: Split) -> Split:
        taken = whole.take(asked.rows(name, split, len(whole), source.class_names, lambda rows: whole.labels[rows]))
        return Split(in_order(np.asarray(taken.images), crop), taken.labels)

    train = part("train", source.train)
    stays, cut = _cut(name, len(train), validation)
    splits = {"train": train.take(stays), "validation": train.take(cut), "test": part("test", source.test)}
    image = train.images.shape[1:]
    surveys = {}
    for split, own in splits.items():
        surveys[split] = survey([Piece(np.asarray(own.images), own.labels, np.arange(len(own)), ())], image)
    return Splits(_info(source.name, source.version, source.class_names, surveys), splits)


class _Asked(NamedTuple):
    """What is asked of data; see `load`."""

    image_size: int | None
    validation: float
    examples: int | None
    few: Few
    crop: Crop
    training: Training | None
    broken_limit: int

    def rows(
        self, name: str, split: str, count: int, class_names: tuple[str, ...], labels: Labels
    ) -> NDArray[np.int64]:
        """Returns which of a split's examples are taken; asks for no more labels than it needs.

        Args:
            name: what messages call the data set.
            split: train or test.
            count: how many examples the split has.
            class_names: name of each class.
            labels: returns the labels of some of them.
        """
        some = np.arange(count)
        if split == "train" and self.examples is not None:
            some = order.part(name, count, self.examples)
        return some[self.few.of(split, len(some), class_names, lambda chosen: labels(some[chosen]))]


def _of_records(opened: Opened, asked: _Asked, lazy: bool) -> Splits:
    """Cuts an opened data set into splits, of which only what is asked for is read into memory if `lazy`."""
    if asked.training is not None and asked.image_size is None:
        raise UsageError("data.image_size is None: data.resized_crop needs the side in pixels that parts are to have")

    def part(split: str, whole: Records) -> Records:
        return whole.part(asked.rows(opened.name, split, len(whole), opened.class_names, whole.labels))

    train, validation = part("train", opened.train), opened.validation
    if validation is None:
        stays, cut = _cut(opened.name, len(train), asked.validation)
        train, validation = train.part(stays), train.part(cut)
    records = {"train": train, "validation": validation, "test": part("test", opened.test)}
    kind = (asked.image_size, asked.validation, asked.examples, asked.few, asked.crop)
    key = f"{opened.identity} {' '.join(map(str, kind))}"
    if lazy:
        surveys = remembered(key, lambda: survey_records(opened.name, records))
        splits = {}
        for name, images in records.items():
            training = asked.training if name == "train" else None
            splits[name] = Split(images.part(surveys[name].rows, training), surveys[name].labels)
    else:
        whole = kept(key, lambda: {name: images.whole() for name, images in records.items()})
        surveys = {name: survey([piece], whole["train"].images.shape[1:]) for name, piece in whole.items()}
        splits = {name: Split(piece.images, piece.labels) for name, piece in whole.items()}
    _check_broken(opened.name, surveys, asked.broken_limit)
    return Splits(_info(opened.name, opened.version, opened.class_names, surveys), splits)


def _check_broken(name: str, surveys: Mapping[str, Survey], limit: int) -> None:
    """Tells of broken images; raises where they are too many, or leave a split empty."""
    broken = [fault for found in surveys.values() for fault in found.broken]
    if not broken:
        return
    total = len(broken) + sum(len(found.rows) for found in surveys.values())
    listed = "".join(f"\n  {fault}" for fault in broken[:_BROKEN_SHOWN])
    listed += f"\n  and {len(broken) - _BROKEN_SHOWN} more" if len(broken) > _BROKEN_SHOWN else ""
    told = f"{name}: {len(broken)} of {total:,} images are broken"
    if len(broken) > limit:
        raise UsageError(
            f"{told}, data.broken_limit is {limit}; replace or remove them, or raise it to leave them out:{listed}"
        )
    for split, found in surveys.items():
        if found.broken and not len(found.rows):
            raise UsageError(f"{told}, all of the {split} split:{listed}")
    _logger.warning("%s and left out:%s", told, listed)


def _cut(name: str, examples: int, validation: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns which examples of a train split stay, and which are for validation."""
    stays, cut = order.cut(examples, validation)
    if not len(stays) or (validation and not len(cut)):
        raise UsageError(
            f"data.validation is {validation}: of {examples} examples in the train split of {name!r} it "
            f"leaves {len(stays)} for training and {len(cut)} for validation"
        )
    return stays, cut


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
