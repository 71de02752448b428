"""Examples that stay on disk, read and decoded when they are asked for."""

import functools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convjax.errors import UsageError

PIECE = 500
"""Examples that are read at once where all are."""

Piece: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.int32]]
"""Images `[N, H, W, C]` and labels `[N]`."""
Decode: TypeAlias = Callable[[Any], tuple[NDArray[np.uint8], int]]
"""A function of a record that returns its image `[H, W, C]` and its label, -1 where it has none."""


class RandomAccess(Protocol):
    """Records by their number, from several threads at once: a data source of TFDS or of Grain, or a list of files."""

    def __len__(self) -> int: ...

    def __getitems__(self, numbers: Sequence[int]) -> Sequence[Any]:
        """Returns the records of these numbers."""
        ...


def threads() -> int:
    """Returns how many threads decode: Pillow leaves the interpreter to others meanwhile."""
    return min(os.cpu_count() or 1, 16)


class Records:
    """Stands for an array of uint8 images `[N, H, W, C]`, of which only the rows that are asked for are read.

    Attributes:
        shape: as an array's; reads one record.
    """

    def __init__(self, name: str, source: RandomAccess, decode: Decode, ids: NDArray[np.int64] | None = None) -> None:
        """Opens records, without reading any.

        Args:
            name: what messages call them.
            source: the records.
            decode: makes an example of one.
            ids: which of them are meant, in their order; None takes all.
        """
        self._name, self._source, self._decode = name, source, decode
        self._ids = np.arange(len(source)) if ids is None else ids

    def __len__(self) -> int:
        return len(self._ids)

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.read(self._ids[:1])[0].shape[1:])

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Reads one image `[H, W, C]`, or those of a slice or of an array of numbers: `[n, H, W, C]`."""
        chosen = self._ids[rows]
        images, _ = self.read(np.atleast_1d(chosen))
        return images if np.ndim(chosen) else images[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Reads all, as NumPy asks for it."""
        del copy  # a new array anyway
        return self.whole()[0].astype(dtype or np.uint8, copy=False)

    def whole(self) -> Piece:
        """Reads all; raises as `pieces`."""
        images, labels = zip(*self.pieces(), strict=True)
        return np.concatenate(images), np.concatenate(labels)

    def part(self, rows: NDArray[np.int64]) -> "Records":
        """Returns some of the records, without reading any."""
        return Records(self._name, self._source, self._decode, self._ids[rows])

    def pieces(self) -> Iterator[Piece]:
        """Yields all examples in their order, piece by piece; threads read a few pieces ahead.

        Raises:
            UsageError: a record cannot be read, or has no label; or the images differ in shape.
        """
        shape = None
        for images, labels in _ahead(self.read, [self._ids[i : i + PIECE] for i in range(0, len(self), PIECE)]):
            shape = shape or images.shape[1:]
            if images.shape[1:] != shape:
                raise self._differ({shape, images.shape[1:]})
            if (labels < 0).any():
                raise UsageError(f"{self._name} has examples without a label")
            yield images, labels

    def read(self, ids: NDArray[np.int64]) -> Piece:
        """Reads the records of these numbers.

        Raises:
            UsageError: one cannot be read, or the images differ in shape.
        """
        try:
            examples = [self._decode(record) for record in self._source.__getitems__(ids.tolist())]
        except Exception as error:  # TFDS, protobuf, ArrayRecord and Pillow each raise their own
            raise UsageError(f"{self._name} cannot be read: {error}") from error
        shapes = {image.shape for image, _ in examples}
        if len(shapes) != 1:
            raise self._differ(shapes)
        return np.stack([image for image, _ in examples]), np.array([label for _, label in examples], np.int32)

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
