"""Decoded images that are kept: the same pixels, decoded once, and again where the files or what was kept changed."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tfds_writer

from convjax.data import kept as module
from convjax.data import sources
from convjax.data.records import Records

RNG = np.random.default_rng(0)
IMAGES = list(RNG.integers(0, 256, (21, 5, 4, 3)).astype(np.uint8))
LABELS = [number % 10 for number in range(21)]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tfds_writer.write(tmp_path, "tiny", {"train": (IMAGES, LABELS), "test": (IMAGES[:5], LABELS[:5])})
    return tmp_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples were decoded whole, split by split, from here on."""
    counts: list[int] = []
    original = Records.whole

    def counted(self: Records) -> Any:
        counts.append(len(self))
        return original(self)

    monkeypatch.setattr(Records, "whole", counted)
    return counts


def load(directory: Path, image_size: int | None = None) -> None:
    """Loads the set and compares it with what was written."""
    source = sources.load("tiny", directory=str(directory), image_size=image_size)
    for split, count in ((source.train, 21), (source.test, 5)):
        if image_size is None:
            np.testing.assert_array_equal(np.asarray(split.images), np.stack(IMAGES[:count]))
        np.testing.assert_array_equal(split.labels, LABELS[:count])
        assert split.labels.dtype == np.int32


def test_a_set_is_decoded_once(directory: Path, decoded: list[int]) -> None:
    load(directory)
    load(directory)
    assert decoded == [21, 5]
    # At another size the pixels are others.
    load(directory, image_size=3)
    assert decoded == [21, 5, 21, 5]


def test_files_that_changed_are_decoded_again(directory: Path, decoded: list[int]) -> None:
    load(directory)
    for file in (directory / "tiny").glob("*/*train*"):
        os.utime(file, (1e9, 1e9))
    load(directory)
    assert decoded == [21, 5, 21, 5]


@pytest.mark.parametrize("damage", ["cut", "bit", "empty"])
def test_what_was_damaged_is_decoded_again_and_put_in_place(directory: Path, decoded: list[int], damage: str) -> None:
    load(directory)
    (file,) = (directory / "cache" / "convjax" / "pixels").iterdir()
    content = bytearray(file.read_bytes())
    # Within the images of the train split: found by its checksum alone.
    place = content.index(np.stack(IMAGES).tobytes()[100:200]) + 50
    content[place] ^= 1
    file.write_bytes({"cut": bytes(content[: len(content) // 2]), "bit": bytes(content), "empty": b""}[damage])
    load(directory)
    assert decoded == [21, 5, 21, 5]
    load(directory)
    assert decoded == [21, 5, 21, 5]


def test_no_more_is_kept_than_there_is_room_for(
    directory: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST", 1000)
    load(directory)
    load(directory)
    assert decoded == [21, 5, 21, 5]
    assert not list((directory / "cache").rglob("*.npz"))


def test_where_nothing_can_be_written_it_is_decoded_each_time(directory: Path, decoded: list[int]) -> None:
    (directory / "cache").write_text("a file where a directory would have to be")
    load(directory)
    load(directory)
    assert decoded == [21, 5, 21, 5]
