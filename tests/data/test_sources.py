from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from convjax.data import sources, splits
from convjax.data.images import Crop, permuted
from convjax.data.sources import Split
from convjax.data.survey import value_counts
from convjax.errors import UsageError


def test_digits_are_all_of_scikit_learns_in_two_disjoint_stratified_splits() -> None:
    source = sources.load("digits")
    assert (len(source.train), len(source.test)) == (1437, 360)
    original = load_digits()
    expected = sorted((i.tobytes(), t) for i, t in zip(original.images.astype(np.uint8), original.target, strict=True))
    both = [
        # 0..16 became 0..255; 255 / 16 is far enough from 1 for the way back to be exact.
        (np.rint(image[..., 0] * (16 / 255)).astype(np.uint8).tobytes(), label)
        for split in (source.train, source.test)
        for image, label in zip(np.asarray(split.images), split.labels, strict=True)
    ]
    assert sorted(both) == expected
    for label, count in enumerate(np.bincount(source.test.labels)):
        assert abs(count - 360 / 1797 * np.sum(original.target == label)) < 1


def test_synthetic_examples_are_functions_of_their_index() -> None:
    first = np.asarray(sources.synthetic(16).train.images)
    sources.synthetic.cache_clear()
    again = np.asarray(sources.synthetic(16).train.images)
    assert (first == again).all()
    assert (first[:-1] != first[1:]).any(axis=(1, 2, 3)).all()


def test_fashion_mnist_is_read_whole(tfds_directory: Path) -> None:
    source = sources.load("fashion_mnist", directory=str(tfds_directory))
    assert source.version == "3.0.1"
    assert source.train.images.shape == (60_000, 28, 28, 1)
    assert source.test.images.shape == (10_000, 28, 28, 1)
    # The data set's own documentation: ten classes of equal size.
    assert np.bincount(source.train.labels).tolist() == [6000] * 10
    assert np.bincount(source.test.labels).tolist() == [1000] * 10
    assert source.class_names[0] == "T-shirt/top"
    # Mean and deviation as published widely for its train split.
    statistics = splits.statistics(value_counts(np.asarray(source.train.images)))
    assert statistics.mean[0] == pytest.approx(0.2860, abs=5e-5)
    assert statistics.std[0] == pytest.approx(0.3530, abs=5e-5)


def test_a_part_of_a_set_is_the_same_however_it_is_read(tfds_directory: Path) -> None:
    given: dict[str, Any] = {"directory": str(tfds_directory), "image_size": None, "validation": 0.2, "examples": 50}
    held = splits.load("fashion_mnist", crop=Crop(permute_pixels=3), **given)
    opened = splits.load("fashion_mnist", crop=Crop(permute_pixels=3), lazy=True, **given)
    plain = splits.load("fashion_mnist", **given)
    assert held.info == opened.info
    assert held.info.examples == {"train": 40, "validation": 10, "test": 10_000}
    assert held.info.fingerprint != plain.info.fingerprint
    images, before = (np.asarray(data.splits["train"].images) for data in (opened, plain))
    np.testing.assert_array_equal(images, permuted(before, 3))


def test_a_colour_set_is_read_and_resized(tfds_directory: Path) -> None:
    source = sources.load("cifar10_jpeg:1.0.0", directory=str(tfds_directory), image_size=16)
    assert source.train.images.shape == (50_000, 16, 16, 3)
    assert source.class_names[:3] == ("airplane", "automobile", "bird")


def test_statistics_equal_numpys() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 5, 7, 3)).astype(np.uint8)
    statistics = splits.statistics(value_counts(images))
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(statistics.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, scaled.std(axis=(0, 1, 2)), rtol=1e-12)


def test_a_constant_channel_is_not_divided_by_zero() -> None:
    assert splits.statistics(value_counts(np.full((2, 3, 3, 1), 7, np.uint8))).std == (1.0,)


def test_the_validation_split_comes_out_of_train_and_leaves_test_alone() -> None:
    whole = sources.load("digits")
    data = splits.load("digits", directory=None, image_size=None, validation=0.1)
    assert data.info.examples == {"train": 1293, "validation": 144, "test": 360}
    parts = [*np.asarray(data.splits["train"].images), *np.asarray(data.splits["validation"].images)]
    assert sorted(i.tobytes() for i in parts) == sorted(i.tobytes() for i in np.asarray(whole.train.images))
    np.testing.assert_array_equal(data.splits["test"].images, whole.test.images)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digitz", "did you mean digits"),
        ("fashion-mnist", "it must read name"),
        ("imagenett", "did you mean imagenette"),
        ("cifar10", "tfds build cifar10"),
    ],
)
def test_a_missing_set_says_what_to_do(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        sources.load(name, directory=str(tmp_path))


def test_a_damaged_set_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "fashion_mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(UsageError, match=r"'fashion_mnist' in .* cannot be read"):
        sources.load("fashion_mnist", directory=str(tmp_path))


def digits(**given: Any) -> dict[str, Split]:
    return splits.load("digits", directory=None, image_size=None, validation=0.0, **given).splits


def test_a_part_of_the_train_split_grows_and_leaves_test_alone() -> None:
    whole, small, large = (digits(examples=count) for count in (None, 100, 200))
    assert (len(small["train"]), len(large["train"]), len(small["test"])) == (100, 200, 360)
    few, more, all_of_them = (
        {image.tobytes() for image in np.asarray(data["train"].images)} for data in (small, large, whole)
    )
    assert few < more < all_of_them
    # No class is left out, whose share is a tenth: with 200 drawn by chance that has a probability of 1e-8.
    assert set(large["train"].labels) == set(range(10))
    with pytest.raises(UsageError, match=r"data.examples is 2000: the train split of 'digits' has 1437"):
        digits(examples=2000)


def test_pixels_are_permuted_alike_in_all_images_with_their_channels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 2)).astype(np.uint8)
    where = np.arange(12, dtype=np.uint8).reshape(1, 4, 3, 1).repeat(2, axis=3)
    order = permuted(where, 7)[0, ..., 0].ravel()
    assert sorted(order) == list(range(12))
    assert list(order) != list(range(12))
    np.testing.assert_array_equal(permuted(images, 7), images.reshape(5, 12, 2)[:, order].reshape(images.shape))
    assert (permuted(images, 8) != permuted(images, 7)).any()
    np.testing.assert_array_equal(permuted(images[0], 7), permuted(images, 7)[0])
    plain, mixed = digits(), digits(crop=Crop(permute_pixels=1))
    for split in ("train", "test"):
        np.testing.assert_array_equal(mixed[split].images, permuted(np.asarray(plain[split].images), 1))
