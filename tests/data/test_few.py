"""Few examples of each class."""

from pathlib import Path

import numpy as np
import pytest

from convjax.data import sources, splits
from convjax.data.few import Few
from convjax.data.splits import Splits
from convjax.errors import UsageError


def digits(few: Few, validation: float = 0.0) -> Splits:
    return splits.load("digits", directory=None, image_size=None, validation=validation, few=few)


def test_so_many_of_each_class_are_kept_of_both_splits() -> None:
    data = digits(Few(train=7, test=3))
    assert np.bincount(data.splits["train"].labels).tolist() == [7] * 10
    assert np.bincount(data.splits["test"].labels).tolist() == [3] * 10
    # Each is an example of the whole set, and no two are the same one.
    whole = {image.tobytes() for image in np.asarray(sources.digits().train.images)}
    kept = {image.tobytes() for image in np.asarray(data.splits["train"].images)}
    assert len(kept) == 70
    assert kept <= whole


def test_fewer_are_a_part_of_more_and_the_validation_split_is_cut_of_them() -> None:
    def images(data: Splits, name: str = "train") -> set[bytes]:
        return {image.tobytes() for image in np.asarray(data.splits[name].images)}

    few, more = digits(Few(train=5)), digits(Few(train=20))
    assert images(few) < images(more)
    cut = digits(Few(train=20), validation=0.1)
    assert (len(cut.splits["train"]), len(cut.splits["validation"])) == (180, 20)
    assert images(cut) | images(cut, "validation") == images(more)


def test_none_keeps_all() -> None:
    assert len(digits(Few(test=3)).splits["train"]) == len(sources.digits().train)


def test_records_give_the_same_in_memory_and_streamed(
    tfds_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    resident, streamed = (
        splits.load(
            "cifar10_jpeg",
            directory=str(tfds_directory),
            image_size=40,
            validation=0.25,
            few=Few(train=4, test=2),
            lazy=lazy,
        )
        for lazy in (False, True)
    )
    assert resident.info == streamed.info
    assert resident.info.examples == {"train": 30, "validation": 10, "test": 20}
    assert np.bincount(resident.splits["test"].labels).tolist() == [2] * 10
    for name, split in resident.splits.items():
        np.testing.assert_array_equal(np.asarray(split.images), np.asarray(streamed.splits[name].images))


def test_what_cannot_be_kept_is_named() -> None:
    with pytest.raises(UsageError, match=r"data\.few\.train is 0: it must be at least 1"):
        Few(train=0)
    counts = np.bincount(sources.digits().test.labels)
    least = int(counts.argmin())
    with pytest.raises(UsageError, match=rf"data\.few\.test is 300: class '{least}' has {counts[least]} examples in"):
        digits(Few(test=300))
