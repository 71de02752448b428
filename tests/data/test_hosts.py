"""Laws of the stream: who reads which examples, and that nobody's work depends on how it is divided."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convjax.data import loader, order, splits
from convjax.data.random_crop import ResizedCrop
from convjax.data.records import Training
from convjax.data.sources import Split

EXAMPLES, BATCH, STEPS, SEED = 50, 24, 6, 5
"""Batches that 1, 2, 3 and 8 hosts can divide, and that do not divide an epoch."""


class Host:
    """A place that is one of some processes."""

    def __init__(self, index: int, count: int) -> None:
        self.index, self.count = index, count

    def replicate(self, array: Any) -> Any:
        return array

    def rows(self, examples: int) -> slice:
        part = examples // self.count
        return slice(part * self.index, part * (self.index + 1))

    def divide(self, rows: Any) -> Any:
        return rows


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Split:
    root = tmp_path_factory.mktemp("hosts")
    for i in range(EXAMPLES):
        file = root / "photos" / "train" / str(i % 2) / f"{i:02d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (40 + i, 90 - i, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(file)
    (root / "photos" / "test").symlink_to(root / "photos" / "train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        return splits.load(
            str(root / "photos"),
            directory=None,
            image_size=16,
            validation=0.0,
            lazy=True,
            training=Training(ResizedCrop((0.08, 1.0)), SEED),
        ).splits["train"]


def ids(step: int) -> NDArray[np.int64]:
    return order.batch_ids(SEED, step, BATCH, EXAMPLES)


def epochs(step: int) -> NDArray[np.int64]:
    return order.batch_epochs(step, BATCH, EXAMPLES)


def stream(train: Split, hosts: int, first: int = 0) -> tuple[NDArray[Any], ...]:
    """Returns images, labels, ids and epochs of all steps from the first on, as the hosts together read them."""
    read = [
        list(loader.feed("streamed", train, Host(i, hosts)).batches(ids, first, STEPS, epochs)) for i in range(hosts)
    ]
    columns = zip(*(batch for step in zip(*read, strict=True) for batch in step), strict=True)
    return tuple(np.concatenate(column) for column in columns)


@pytest.mark.parametrize("hosts", [1, 2, 3, 8])
def test_each_example_is_read_once_an_epoch_whatever_the_number_of_hosts(train: Split, hosts: int) -> None:
    images, labels, numbers, visits = stream(train, hosts)
    np.testing.assert_array_equal(visits, np.arange(STEPS * BATCH) // EXAMPLES)
    assert len(numbers) == STEPS * BATCH
    for epoch in range(STEPS * BATCH // EXAMPLES):
        assert sorted(numbers[epoch * EXAMPLES : (epoch + 1) * EXAMPLES]) == list(range(EXAMPLES))
    np.testing.assert_array_equal(labels, train.labels[numbers])
    np.testing.assert_array_equal(images, stream(train, 1)[0])


@pytest.mark.parametrize("threads", [1, 7])
def test_the_number_of_threads_changes_nothing(train: Split, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = stream(train, 1)
    monkeypatch.setattr(loader, "threads", lambda: threads)
    for found, before in zip(stream(train, 1), expected, strict=True):
        np.testing.assert_array_equal(found, before)


@pytest.mark.parametrize("first", [1, 4])
def test_the_stream_goes_on_from_any_step(train: Split, first: int) -> None:
    for found, whole in zip(stream(train, 2, first), stream(train, 1), strict=True):
        np.testing.assert_array_equal(found, whole[first * BATCH :])


def test_an_example_shows_another_part_in_each_epoch(train: Split) -> None:
    images, _, numbers, _ = stream(train, 1)
    for example in range(EXAMPLES):
        first, second = images[numbers == example][:2]
        assert (first != second).any()


def test_the_part_does_not_depend_on_the_size_of_the_batch(train: Split) -> None:
    both = []
    for size in (10, 25):
        feed = loader.feed("streamed", train, Host(0, 1))
        batches = feed.batches(
            lambda n, size=size: order.batch_ids(SEED, n, size, EXAMPLES),  # type: ignore[misc]
            0,
            100 // size,
            lambda n, size=size: order.batch_epochs(n, size, EXAMPLES),  # type: ignore[misc]
        )
        both.append(np.concatenate([batch.images for batch in batches]))
    np.testing.assert_array_equal(both[0], both[1])


def test_evaluation_sees_the_centre(train: Split) -> None:
    numbers, count = loader.in_order(EXAMPLES, BATCH)
    found = [batch.images for batch in loader.feed("streamed", train, Host(0, 1)).batches(numbers, 0, count)]
    np.testing.assert_array_equal(np.concatenate(found)[:EXAMPLES], np.asarray(train.images))
