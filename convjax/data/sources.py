"""Where examples come from: the embedded digits, TFDS, files, or a function of the index."""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from convjax.data.images import WHOLE, Crop
from convjax.data.kept import kept
from convjax.data.records import Records
from convjax.errors import UsageError, nearest

if TYPE_CHECKING:
    from convjax.data.opened import Opened

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

    def drawn(
        self, ids: NDArray[np.integer[Any]], epochs: NDArray[np.integer[Any]] | None = None
    ) -> tuple[NDArray[Any], ...]:
        """Returns what `convjax.data.loader.Batch` holds of some draws, before augmentation.

        Args:
            ids: the draws, as `convjax.data.order.batch_ids` has them.
            epochs: the epoch of each, for images as training sees them in these; None for those of evaluation, which
                have none in their batch either.
        """
        found = ids % len(self)
        if epochs is not None and isinstance(self.images, Records):
            images = self.images.visit(ids, epochs)
        else:
            images = self.images[found]
        columns = (images, self.labels[found], ids.astype(np.int32))
        return columns if epochs is None else (*columns, epochs.astype(np.int32))


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
) -> Source:
    """Reads a whole data set into memory.

    Args:
        name: `digits`, `synthetic`, or see `open_records`.
        directory: see `open_records`.
        image_size: side in pixels to which images are resized and cropped; None keeps them as they are.

    Raises:
        UsageError: as `open_records`; an image is broken, or they differ in size while `image_size` is None.
    """
    if name == "synthetic":
        return synthetic(image_size or 32)
    if name == "digits":
        source = digits()
        if image_size not in (None, source.train.images.shape[1]):
            raise UsageError(f"data.image_size is {image_size}: the digits are 8 x 8, leave it out")
        return source
    opened = open_records(name, directory=directory, image_size=image_size)
    whole = kept(
        f"{opened.identity} {image_size}", lambda: {"train": opened.train.whole(), "test": opened.test.whole()}
    )
    for piece in whole.values():
        if piece.broken:
            raise UsageError(piece.broken[0])
    train, test = (Split(whole[split].images, whole[split].labels) for split in ("train", "test"))
    return Source(opened.name, opened.version, opened.class_names, train, test)


def open_records(
    name: str, *, directory: str | None = None, image_size: int | None = None, crop: Crop = WHOLE
) -> "Opened":
    """Opens a data set that is not embedded, without reading its examples.

    Args:
        name: a TFDS set as `name`, `name/config` or `name:version`; or a path, which begins with `/`, `./`, `../` or
            `~`, or ends as a file does that is none of TFDS: see `convjax.data.paths`.
        directory: TFDS data directory; TFDS's own default (`$TFDS_DATA_DIR`, else `~/tensorflow_datasets`)
            if None. Of a path: where it begins, unless it says so itself.
        image_size: side in pixels to which images are resized and cropped; None keeps them as they are.
        crop: the part that evaluation sees.

    Raises:
        UsageError: there is no such set, or it has not been prepared or is not as it must be.
    """
    # TFDS takes a second to import, which the embedded sets need not wait for.
    from convjax.data import paths, tfds_source

    size = None if image_size is None else (image_size, image_size)
    open_it = paths.open_records if paths.is_path(name) else tfds_source.open_records
    return open_it(name, directory=directory, size=size, crop=crop)


def image_shape(name: str, *, directory: str | None = None, image_size: int | None = None) -> tuple[int, ...]:
    """Returns the (height, width, channels) of a data set's images, without reading more than one.

    Raises:
        UsageError: as `load`.
    """
    if name in EMBEDDED:
        return load(name, image_size=image_size).train.images.shape[1:]
    return open_records(name, directory=directory, image_size=image_size).train.shape[1:]


def require(name: str, *, directory: str | None = None) -> None:
    """Makes sure, without reading it, that a data set is there.

    Raises:
        UsageError: there is no such set, or it has not been prepared.
    """
    from convjax.data import paths, tfds_source

    if paths.is_path(name):
        paths.find(name, directory)
    elif name not in EMBEDDED:
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
    path = f"; of the folder or file here say ./{name}" if Path(name).exists() else ""
    return UsageError(f"there is no data set {name!r}: {nearest(name, [*EMBEDDED, *known])}{path}")
