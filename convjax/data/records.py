"""Examples that stay on disk, read and decoded when they are asked for."""

import dataclasses
import functools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from convjax.data.images import Crop, EncodedImage, in_order, view
from convjax.data.random_crop import ResizedCrop, cut
from convjax.errors import UsageError

PIECE = 100
"""Examples that are read at once where all are."""


class Encoded(NamedTuple):
    """An image file and its label.

    Attributes:
        name: what messages call it.
        content: of the file.
        label: its class, -1 where it has none.
    """

    name: str
    content: bytes
    label: int


class Piece(NamedTuple):
    """Attributes:
    images: uint8 `[N, H, W, C]`.
    labels: int32 `[N]`.
    rows: int64 `[N]`, which of the records that were asked for these are; the others are broken.
    broken: why each of the others is.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    rows: NDArray[np.int64]
    broken: tuple[str, ...]


class RandomAccess(Protocol):
    """Encoded images by their number, from several threads at once."""

    def __len__(self) -> int: ...

    def __getitems__(self, numbers: Sequence[int]) -> Sequence[Encoded]:
        """Returns the records of these numbers."""
        ...


@dataclasses.dataclass(frozen=True)
class View:
    """What is seen of encoded images.

    Attributes:
        size: height and width; None keeps the images'.
        channels: 1 or 3.
        crop: the part that evaluation sees.
    """

    size: tuple[int, int] | None
    channels: int
    crop: Crop = Crop()

    def __call__(self, encoded: Encoded) -> NDArray[np.uint8]:
        return view(encoded.content, encoded.name, self.size, self.channels, self.crop)


@dataclasses.dataclass(frozen=True)
class Training:
    """What training sees of encoded images: a part that seed, epoch and example decide on."""

    crop: ResizedCrop
    seed: int


def threads() -> int:
    """Returns how many threads decode: the decoders leave the interpreter to others meanwhile."""
    return min(os.cpu_count() or 1, 16)


class Records:
    """Stands for an array of uint8 images `[N, H, W, C]`, of which only the rows that are asked for are read.

    Attributes:
        shape: as an array's; reads one record where the images keep their size.
    """

    def __init__(
        self,
        name: str,
        source: RandomAccess,
        seen: View,
        ids: NDArray[np.int64] | None = None,
        training: Training | None = None,
    ) -> None:
        """Opens records, without reading any.

        Args:
            name: what messages call them.
            source: the records.
            seen: what is seen of each.
            ids: which of them are meant, in their order; None takes all.
            training: what training sees of each; None where that is the same.
        """
        self._name, self._source, self._seen, self._training = name, source, seen, training
        self._ids = np.arange(len(source)) if ids is None else ids

    def __len__(self) -> int:
        return len(self._ids)

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *((*self._seen.size, self._seen.channels) if self._seen.size else self[:1].shape[1:]))

    def unlabelled(self) -> bool:
        """Says whether the first of these records has no label."""
        return self._read(self._ids[:1])[0].label < 0

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Reads one image `[H, W, C]`, or those of a slice or of an array of numbers: `[n, H, W, C]`.

        Raises:
            UsageError: one cannot be read, or they differ in shape.
        """
        chosen = self._ids[rows]
        images = self._stack([self._seen(encoded) for encoded in self._read(np.atleast_1d(chosen))])
        return images if np.ndim(chosen) else images[0]

    def labels(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Reads the labels of some of the records `[n]`, whether or not their images are broken."""
        return np.array([encoded.label for encoded in self._read(self._ids[rows])], np.int32)

    def visit(self, draws: NDArray[np.integer[Any]], epochs: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Reads images as training sees them in given epochs: `[n, H, W, C]`; raises as indexing does.

        Draw number d is example d modulo their number: one that is drawn several times for a batch is cut each time
        otherwise.
        """
        rows = draws % len(self)
        if self._training is None:
            return self[rows]
        size, crop, seed = self._seen.size, self._training.crop, self._training.seed
        assert size is not None, "checked when the data were opened"
        images = []
        for encoded, draw, epoch in zip(self._read(self._ids[rows]), draws.tolist(), epochs.tolist(), strict=True):
            image = EncodedImage.read(encoded.content, encoded.name)
            box = crop.box(image.height, image.width, seed, epoch, draw)
            images.append(in_order(cut(image, box, size, self._seen.channels), self._seen.crop))
        return self._stack(images)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Reads all, as NumPy asks for it."""
        del copy  # a new array anyway
        whole = self.whole()
        if whole.broken:
            raise UsageError(whole.broken[0])
        return whole.images.astype(dtype or np.uint8, copy=False)

    def whole(self) -> Piece:
        """Reads all; raises as `pieces`."""
        pieces = list(self.pieces())
        images, labels, rows, _ = zip(*([piece for piece in pieces if len(piece.rows)] or [self._nothing]), strict=True)
        broken = tuple(fault for piece in pieces for fault in piece.broken)
        return Piece(np.concatenate(images), np.concatenate(labels), np.concatenate(rows), broken)

    def part(self, rows: NDArray[np.int64], training: Training | None = None) -> "Records":
        """Returns some of the records, without reading any."""
        return Records(self._name, self._source, self._seen, self._ids[rows], training)

    def pieces(self) -> Iterator[Piece]:
        """Yields all examples in their order, piece by piece; threads read a few pieces ahead.

        Images that are broken are left out, and named.

        Raises:
            UsageError: no file can be read, or an example has no label; or the images differ in shape.
        """
        shape: tuple[int, ...] | None = None
        for piece in _ahead(self._piece, [np.arange(len(self))[i : i + PIECE] for i in range(0, len(self), PIECE)]):
            if len(piece.rows):
                shape = shape or piece.images.shape[1:]
                if piece.images.shape[1:] != shape:
                    raise self._differ({shape, piece.images.shape[1:]})
            if (piece.labels < 0).any():
                raise UsageError(f"{self._name} has examples without a label")
            yield piece

    def _piece(self, rows: NDArray[np.int64]) -> Piece:
        images, labels, good, broken = [], [], [], []
        for row, encoded in zip(rows.tolist(), self._read(self._ids[rows]), strict=True):
            try:
                images.append(self._seen(encoded))
            except UsageError as error:
                broken.append(str(error))
                continue
            except Exception as error:  # decoders meet damage in more ways than they say
                broken.append(f"{encoded.name}: the image is damaged ({type(error).__name__}: {error})")
                continue
            labels.append(encoded.label)
            good.append(row)
        if not images:
            return self._nothing._replace(broken=tuple(broken))
        return Piece(self._stack(images), np.array(labels, np.int32), np.array(good, np.int64), tuple(broken))

    @property
    def _nothing(self) -> Piece:
        images = np.zeros((0, *(self._seen.size or (0, 0)), self._seen.channels), np.uint8)
        return Piece(images, np.zeros(0, np.int32), np.zeros(0, np.int64), ())

    def _read(self, ids: NDArray[np.int64]) -> Sequence[Encoded]:
        try:
            return self._source.__getitems__(ids.tolist())
        except Exception as error:  # TFDS, protobuf, ArrayRecord and the system each raise their own
            raise UsageError(f"{self._name} cannot be read: {error}") from error

    def _stack(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        shapes = {image.shape for image in images}
        if len(shapes) != 1:
            raise self._differ(shapes)
        return np.stack(images)

    def _differ(self, shapes: set[tuple[int, ...]]) -> UsageError:
        two = " and ".join(" x ".join(map(str, shape)) for shape in sorted(shapes)[:2])
        return UsageError(
            f"{self._name}: its images differ in shape, as {two}: "
            "set data.image_size to the side in pixels that they are to have"
        )


def _ahead(read: Callable[[NDArray[np.int64]], Piece], spans: Sequence[NDArray[np.int64]]) -> Iterator[Piece]:
    """Yields what was read of each span, in order, while threads read the next ones; few wait in memory."""
    waiting: deque[Future[Piece]] = deque()
    with ThreadPoolExecutor(threads()) as pool:
        for span in spans:
            waiting.append(pool.submit(read, span))
            if len(waiting) > 2 * threads():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
