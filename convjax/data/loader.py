"""The two ways to feed the step: a split resident on the device, or one streamed to it from the host.

Both give the same batches. What differs is where the examples lie, and so what a step is handed: ids that it
looks up on the device, or the batch itself.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from convjax.data.records import threads
from convjax.data.sources import Split

Kind: TypeAlias = Literal["resident", "streamed"]
Ids: TypeAlias = Callable[[int], NDArray[np.integer[Any]]]
"""A number for each row of a batch, as which example it is, as a function of the batch's number."""


class Batch(NamedTuple):
    """Attributes:
    images: uint8 `[N, H, W, C]`.
    labels: int32 `[N]`.
    ids: int32 `[N]`, which example of the split each is, or draw of it; see `convjax.data.order.batch_ids`.
    epochs: int32 `[N]`, the epoch that each belongs to; None outside of training.
    """

    images: jax.Array
    labels: jax.Array
    ids: jax.Array
    epochs: jax.Array | None = None


class Place(Protocol):
    """Where the arrays of a feed are to lie: one device, or a batch divided among many of several processes."""

    def replicate(self, array: NDArray[Any]) -> jax.Array:
        """Puts an array whole on each device."""
        ...

    def rows(self, examples: int) -> slice:
        """Returns which rows of a batch this process hands in."""
        ...

    def divide(self, rows: NDArray[Any]) -> jax.Array:
        """Divides a batch among the devices, of which this process hands in its own rows."""
        ...


class Feed(Protocol):
    """A split, ready to be handed to jitted functions.

    Attributes:
        labels: int32 `[N]`, of the whole split, on the host.
        held: arrays that every call of a jitted function takes beside what `batches` yields.
    """

    labels: NDArray[np.int32]
    held: Any

    def __len__(self) -> int: ...

    def batches(self, ids: Ids, first: int, last: int, epochs: Ids | None = None) -> Iterator[Any]:
        """Yields what `read` makes batches of, for the numbers from `first` to below `last`.

        With `epochs` given, images are as training sees them in these; else as evaluation does.
        """
        ...

    @staticmethod
    def read(held: Any, given: Any) -> Batch:
        """Returns a batch from `held` and what `batches` yielded; to be called inside of a jitted function."""
        ...


class Resident:
    """A split that lives on the device as uint8; a batch is looked up there, from ids alone."""

    def __init__(self, split: Split, place: Place) -> None:
        self.labels, self._place = split.labels, place
        self.held = (place.replicate(np.asarray(split.images)), place.replicate(split.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, ids: Ids, first: int, last: int, epochs: Ids | None = None) -> Iterator[jax.Array]:
        """Yields the ids of each batch, `[N]`, or ids and epochs, `[N, 2]`: one transfer a step."""
        for number in range(first, last):
            given = ids(number) if epochs is None else np.stack([ids(number), epochs(number)], axis=1)
            yield self._place.divide(given[self._place.rows(len(given))].astype(np.int32))

    @staticmethod
    def read(held: Any, given: Any) -> Batch:
        """Looks the ids up."""
        images, labels = held
        ids, epochs = (given, None) if given.ndim == 1 else (given[:, 0], given[:, 1])
        found = ids % len(labels)
        return Batch(jnp.take(images, found, axis=0), jnp.take(labels, found, axis=0), ids, epochs)


class Streamed:
    """A split that stays on the host, in memory or on disk.

    Grain's threads gather batches ahead of the step that takes them: of each batch the rows of this process alone.
    """

    def __init__(self, split: Split, place: Place) -> None:
        self.labels, self._split, self._place = split.labels, split, place
        self.held = ()

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, ids: Ids, first: int, last: int, epochs: Ids | None = None) -> Iterator[Batch]:
        """Yields the batches themselves, in order, already on their way to the device."""
        import grain  # only who streams waits for it

        def gather(number: int) -> tuple[NDArray[Any], ...]:
            chosen = ids(number)
            own = self._place.rows(len(chosen))
            return self._split.drawn(chosen[own], None if epochs is None else epochs(number)[own])

        # Rows of an array are soon copied; decoding takes what cores there are.
        workers = 2 if isinstance(self._split.images, np.ndarray) else max(2, threads())
        ahead = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * workers)
        for batch in grain.MapDataset.range(first, last).map(gather).to_iter_dataset(ahead):
            yield Batch(*map(self._place.divide, batch))

    @staticmethod
    def read(held: Any, given: Any) -> Batch:
        """Returns the batch as it came."""
        del held
        return cast(Batch, given)


def feed(kind: Kind, split: Split, place: Place) -> Feed:
    """Returns the feed of one kind, its arrays where `place` puts them."""
    return Resident(split, place) if kind == "resident" else Streamed(split, place)


def in_order(examples: int, batch_size: int) -> tuple[Ids, int]:
    """Returns the batches that hold each example once, in order, and how many they are.

    The last batch is filled up with the last example.
    """

    def ids(number: int) -> NDArray[np.integer[Any]]:
        return np.minimum(np.arange(number * batch_size, (number + 1) * batch_size), examples - 1)

    return ids, -(-examples // batch_size)
