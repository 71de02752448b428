"""Sets that stay on disk: the same examples as in memory, read only where they are asked for."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tfds_writer
from PIL import Image
from second_of_four import SecondOfFour

from convjax.data import loader, order, sources, splits, tfds_source
from convjax.data.images import Crop, EncodedImage, view
from convjax.data.random_crop import ResizedCrop, cut
from convjax.data.records import PIECE, Records, Training
from convjax.data.splits import Splits
from convjax.errors import UsageError

RNG = np.random.default_rng(0)
COLOURS = list(RNG.integers(0, 256, (2 * PIECE + 7, 5, 4, 3)).astype(np.uint8))
CLASSES = (np.arange(len(COLOURS)) % 10).tolist()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TFDS data directory with a set of three pieces, and of an odd size."""
    path = tmp_path_factory.mktemp("tfds")
    tfds_writer.write(path, "tiny", {"train": (COLOURS, CLASSES), "test": (COLOURS[:33], CLASSES[:33])})
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "convjax" / "surveys"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of all records that are read from files from here on, whatever the split."""
    from tensorflow_datasets.core.data_sources.base import BaseDataSource

    numbers: list[int] = []
    original = BaseDataSource.__getitems__

    def counted(self: Any, keys: Any) -> Any:
        numbers.extend(keys)
        return original(self, keys)

    monkeypatch.setattr(BaseDataSource, "__getitems__", counted)
    return numbers


def load(directory: Path, *, lazy: bool, validation: float = 0.1, image_size: int | None = None) -> Splits:
    return splits.load("tiny", directory=str(directory), image_size=image_size, validation=validation, lazy=lazy)


@pytest.mark.parametrize(("validation", "image_size"), [(0.1, None), (0.0, None), (0.3, 7)])
def test_what_stays_on_disk_is_what_would_be_in_memory(
    directory: Path, validation: float, image_size: int | None
) -> None:
    memory = load(directory, lazy=False, validation=validation, image_size=image_size)
    disk = load(directory, lazy=True, validation=validation, image_size=image_size)
    again = load(directory, lazy=True, validation=validation, image_size=image_size)
    # Fingerprints, mean and deviation among it: the same bits, though looked at piece by piece.
    assert memory.info == disk.info == again.info
    for name, split in disk.splits.items():
        assert isinstance(split.images, Records)
        np.testing.assert_array_equal(split.labels, memory.splits[name].labels)
        assert len(split.images) == len(memory.splits[name].images) == len(split)
        if len(split):
            np.testing.assert_array_equal(split.images, memory.splits[name].images)
            assert split.images.shape == memory.splits[name].images.shape
    kept, _ = order.cut(len(COLOURS), validation)
    if image_size is None:
        np.testing.assert_array_equal(disk.splits["train"].images, np.stack(COLOURS)[kept])
        np.testing.assert_array_equal(disk.splits["train"].images[5], COLOURS[kept[5]])
        np.testing.assert_array_equal(
            disk.splits["train"].take(kept[3:1:-1]).images, np.stack(COLOURS)[kept][kept[3:1:-1]]
        )


def test_all_is_read_once_and_then_only_what_is_asked_for(directory: Path, reads: list[int]) -> None:
    load(directory, lazy=True)
    assert sorted(reads) == sorted([*range(len(COLOURS)), *range(33), 0]), "each once, and one for the shape"
    reads.clear()
    train = load(directory, lazy=True).splits["train"]
    assert reads == []
    kept, _ = order.cut(len(COLOURS), 0.1)
    chosen = train.images[np.array([4, 2, 180])]
    assert reads == [kept[4], kept[2], kept[180]]
    np.testing.assert_array_equal(chosen, np.stack([COLOURS[kept[i]] for i in (4, 2, 180)]))


def test_a_process_reads_its_own_rows_alone(directory: Path, reads: list[int]) -> None:
    train = load(directory, lazy=True).splits["train"]
    reads.clear()
    feed = loader.feed("streamed", train, SecondOfFour())
    kept, _ = order.cut(len(COLOURS), 0.1)
    expected = []
    for number, batch in enumerate(feed.batches(lambda n: order.batch_ids(5, n, 8, len(train)), 3, 30), start=3):
        own = order.batch_ids(5, number, 8, len(train))[2:4]
        expected += kept[own].tolist()
        np.testing.assert_array_equal(batch.images, np.stack([COLOURS[kept[i]] for i in own]))
        np.testing.assert_array_equal(batch.labels, [CLASSES[kept[i]] for i in own])
        np.testing.assert_array_equal(batch.ids, own)
    assert sorted(reads) == sorted(expected)


def test_the_shape_needs_one_record(directory: Path, reads: list[int]) -> None:
    assert sources.image_shape("tiny", directory=str(directory)) == (5, 4, 3)
    assert reads == [0]
    assert sources.image_shape("digits") == (8, 8, 1)


def test_other_files_are_looked_at_anew(directory: Path, tmp_path: Path, reads: list[int], cache: Path) -> None:
    first = load(directory, lazy=True).info
    moved = tmp_path / "moved"
    brighter = [np.minimum(image, 254) + 1 for image in COLOURS]
    tfds_writer.write(moved, "tiny", {"train": (COLOURS, CLASSES), "test": (COLOURS[:33], CLASSES[:33])})
    assert load(moved, lazy=True).info == first
    shutil.rmtree(moved)
    tfds_writer.write(moved, "tiny", {"train": (brighter, CLASSES), "test": (COLOURS[:33], CLASSES[:33])})
    changed = load(moved, lazy=True).info
    assert changed.fingerprint["train"] != first.fingerprint["train"]
    assert changed.fingerprint["test"] == first.fingerprint["test"]
    assert changed == load(moved, lazy=False).info
    # Whoever finds a damaged note reads again.
    for note in cache.glob("*.npz"):
        note.write_bytes(note.read_bytes()[:100])
    assert load(moved, lazy=True).info == changed


def test_where_nothing_can_be_kept_the_data_are_read_again(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load(directory, lazy=True).info == load(directory, lazy=False).info
    assert "cannot be written (Not a directory): the data will be read through again" in caplog.text


@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_wrong_with_a_set_is_told(tmp_path: Path, lazy: bool) -> None:
    folder = tfds_writer.write(tmp_path, "tiny", {"train": ([*COLOURS[:20], COLOURS[0][:4]], CLASSES[:21])})
    with pytest.raises(UsageError, match=r"images differ in shape, as 4 x 4 x 3 and 5 x 4 x 3: set data\.image_size"):
        load(tmp_path, lazy=lazy)
    assert load(tmp_path, lazy=lazy, image_size=4).info.image == (4, 4, 3)
    shutil.rmtree(folder)
    tfds_writer.write(tmp_path, "tiny", {"train": (COLOURS[:20], CLASSES[:20]), "test": (COLOURS[:9], [-1] * 9)})
    with pytest.raises(UsageError, match=r"'tiny' in .* has examples without a label"):
        load(tmp_path, lazy=lazy)


def test_the_differing_shape_may_lie_in_another_piece(tmp_path: Path) -> None:
    images = [*COLOURS[:PIECE], *(image[:4] for image in COLOURS[:PIECE])]
    tfds_writer.write(tmp_path, "tiny", {"train": (images, CLASSES[: len(images)])})
    records = tfds_source.open_records("tiny", directory=str(tmp_path), size=None, crop=Crop()).train
    with pytest.raises(UsageError, match="images differ in shape"):
        list(records.part(np.arange(len(records))).pieces())


def test_a_record_that_is_damaged_later_is_named(directory: Path, tmp_path: Path) -> None:
    """Through Grain's threads, too."""
    shutil.copytree(directory / "tiny", tmp_path / "tiny")
    train = load(tmp_path, lazy=True).splits["train"]
    file = next(tmp_path.glob("tiny/1.0.0/*train*"))
    content = bytearray(file.read_bytes())
    content[2000 : len(content) // 2] = bytes(len(content) // 2 - 2000)
    file.write_bytes(content)
    feed = loader.feed("streamed", train, SecondOfFour())
    with pytest.raises(UsageError, match=r"data set 'tiny' in .* cannot be read"):
        list(feed.batches(lambda n: order.batch_ids(5, n, 8, len(train)), 0, 100))


def test_a_set_like_imagenet_is_read(tmp_path: Path) -> None:
    """JPEGs of many sizes with names of files, and a test split that has no labels."""

    def jpeg(number: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(COLOURS[number]).resize((40 + number % 9, 60 - number % 7)).save(file, "JPEG")
        return file.getvalue()

    files = [jpeg(i) for i in range(40)]
    files[31] = files[31][:200]
    sets = {"train": (files[:30], CLASSES[:30]), "validation": (files[30:], CLASSES[30:40]), "test": (files, [-1] * 40)}
    tfds_writer.write(tmp_path, "imagenet2012", sets, file_names=True)
    with pytest.raises(
        UsageError, match=r"1 of 40 images are broken.*\n  validation record 1 \(validation_1\.JPEG\): "
    ):
        splits.load("imagenet2012", directory=str(tmp_path), image_size=32, validation=0.1, lazy=True)
    data = splits.load(
        "imagenet2012",
        directory=str(tmp_path),
        image_size=32,
        validation=0.1,
        lazy=True,
        crop=Crop(0.875),
        training=Training(ResizedCrop((0.08, 1.0)), 0),
        broken_limit=1,
    )
    assert data.info.examples == {"train": 27, "validation": 3, "test": 9}
    assert data.splits["test"].labels.tolist() == [CLASSES[i] for i in range(30, 40) if i != 31]
    train, (kept, _) = data.splits["train"], order.cut(30, 0.1)
    np.testing.assert_array_equal(train.images[4], view(files[kept[4]], "", (32, 32), 3, Crop(0.875)))
    image, rows = EncodedImage.read(files[kept[4]], ""), np.array([4])
    box = ResizedCrop((0.08, 1.0)).box(image.height, image.width, 0, 7, 4)
    np.testing.assert_array_equal(train.drawn(rows, np.array([7]))[0][0], cut(image, box, (32, 32), 3))


def test_a_validation_split_beside_a_test_split_is_taken(tmp_path: Path) -> None:
    sets = {
        split: (COLOURS[:count], CLASSES[:count]) for split, count in (("train", 20), ("validation", 7), ("test", 9))
    }
    tfds_writer.write(tmp_path, "tiny", sets)
    assert load(tmp_path, lazy=True, validation=0.5).info.examples == {"train": 20, "validation": 7, "test": 9}
