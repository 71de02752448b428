"""Where examples come from: the embedded digits, TFDS, or a function of the index."""

import dataclasses
import functools
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from convjax.data import order
from convjax.data.images import permuted
from convjax.errors import UsageError, nearest

EMBEDDED = ("digits", "synthetic")


class Images(Protocol):
    """uint8 images `[N, H, W, C]`: an array, or `Records`, which reads the rows that it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]: ...

    def __array__(self, dtype: Any = None, /, *, copy: bool | None = None) -> NDArray[Any]: ...


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples; their labels are in memory.

    Attributes:
        images: uint8 `[N, H, W, C]`.
        labels: int32 `[N]`.
    """

    images: Images
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, ids: NDArray[np.int64]) -> "Split":
        return Split(self.images[ids], self.labels[ids])


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as it is published: a train split, a test split, and the names of its classes."""

    name: str
    version: str
    class_names: tuple[str, ...]
    train: Split
    test: Split


def load(
    name: str,
    *,
    directory: str | None = None,
    image_size: int | None = None,
    examples: int | None = None,
    permute_pixels: int | None = None,
) -> Source:
    """Reads a whole data set into memory.

    Args:
        name: `digits`, `synthetic`, or a TFDS set as `name`, `name/config` or `name:version`.
        directory: TFDS data directory; TFDS's own default (`$TFDS_DATA_DIR`, else `~/tensorflow_datasets`)
            if None.
        image_size: side in pixels to which images are resized and cropped; None keeps them as they are.
        examples: how many of the train split are taken, see `convjax.data.order.part`; None takes all.
        permute_pixels: seed of the permutation that the pixels of all images are put in, see
            `convjax.data.images.permuted`; None leaves them in order.

    Raises:
        UsageError: there is no such set, it has not been prepared, it has fewer than `examples`, or its images differ
            in size while `image_size` is None.
    """
    if name in EMBEDDED:
        return _embedded(name, image_size, examples, permute_pixels)
    # TFDS takes a second to import, which the embedded sets need not wait for.
    from convjax.data import tfds_source

    return tfds_source.load(
        name, directory=directory, image_size=image_size, examples=examples, permute_pixels=permute_pixels
    )


def _embedded(name: str, image_size: int | None, examples: int | None, permute_pixels: int | None) -> Source:
    if name == "synthetic":
        source = synthetic(image_size or 32)
    else:
        source = digits()
        if image_size not in (None, source.train.images.shape[1]):
            raise UsageError(f"data.image_size is {image_size}: the digits are 8 x 8, leave it out")
    if examples is not None:
        source = dataclasses.replace(source, train=source.train.take(order.part(name, len(source.train), examples)))
    if permute_pixels is not None:
        train, test = (
            Split(permuted(np.asarray(split.images), permute_pixels), split.labels)
            for split in (source.train, source.test)
        )
        source = dataclasses.replace(source, train=train, test=test)
    return source


def image_shape(name: str, *, directory: str | None = None, image_size: int | None = None) -> tuple[int, ...]:
    """Returns the (height, width, channels) of a data set's images, without reading more than one.

    Raises:
        UsageError: as `load`.
    """
    if name in EMBEDDED:
        return load(name, image_size=image_size).train.images.shape[1:]
    from convjax.data import tfds_source

    return tfds_source.open_records(name, directory=directory, image_size=image_size).train.shape[1:]


def require(name: str, *, directory: str | None = None) -> None:
    """Makes sure, without reading it, that a data set is there.

    Raises:
        UsageError: there is no such set, or it has not been prepared.
    """
    if name not in EMBEDDED:
        from convjax.data import tfds_source

        tfds_source.find(name, directory)


def digits() -> Source:
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships (UCI, Alpaydin and Kaynak 1998).

    360 of them, the same share of each class, are the test split; the choice is fixed. Values 0..16 become
    0..255.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.rint(bunch.images[..., None] * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int32)
    train, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    everything = Split(images, labels)
    names = tuple(str(n) for n in range(10))
    return Source("digits", "1.0.0", names, everything.take(np.sort(train)), everything.take(np.sort(test)))


@functools.cache
def synthetic(size: int) -> Source:
    """Coloured noise around one pattern a class, each image a function of its index: for tests and benchmarks."""
    classes = 10
    patterns = np.random.Generator(np.random.Philox(key=0)).integers(64, 192, (classes, size, size, 3))

    def split(first: int, count: int) -> Split:
        labels = (np.arange(first, first + count) % classes).astype(np.int32)
        images = np.empty((count, size, size, 3), np.uint8)
        for i, label in enumerate(labels):
            noise = np.random.Generator(np.random.Philox(key=[1, first + i])).integers(-64, 64, images.shape[1:])
            images[i] = patterns[label] + noise
        return Split(images, labels)

    return Source("synthetic", "1.0.0", tuple(map(str, range(classes))), split(0, 2048), split(2048, 512))


def unknown(name: str, known: list[str]) -> UsageError:
    """The error for a data set that nobody knows."""
    return UsageError(f"there is no data set {name!r}: {nearest(name, [*EMBEDDED, *known])}")
