"""Boxes cut out, erased, exchanged."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from convjax.data.augment import Augment
from convjax.data.boxes import RandomErasing, RandomResizedCrop, resized
from convjax.data.mixing import Mix, Targets
from convjax.errors import UsageError

RNG = np.random.default_rng(2)
IMAGES = jnp.asarray(RNG.integers(1, 256, (256, 12, 16, 3)), jnp.uint8)
KEYS = jax.random.split(jax.random.key(0), 256)
LABELS = jnp.arange(256, dtype=jnp.int32)


def erased(operation: RandomErasing) -> tuple[Any, Any]:
    found = np.asarray(jax.jit(jax.vmap(operation))(KEYS, IMAGES))
    return found, (found != np.asarray(IMAGES)).any(-1)


@pytest.mark.parametrize(
    ("start", "sides", "size"), [((0, 0), (12, 16), (12, 16)), ((2, 3), (7, 9), (12, 16)), ((1, 0), (10, 16), (5, 5))]
)
def test_a_box_is_resized_as_pillow_does(start: Any, sides: Any, size: Any) -> None:
    ours = np.asarray(resized(IMAGES[0], start, sides, size), int)
    box = (start[1], start[0], start[1] + sides[1], start[0] + sides[0])
    theirs = Image.fromarray(np.asarray(IMAGES[0])).resize(size[::-1], Image.Resampling.BILINEAR, box=box)
    # Pillow rounds between rows and columns, and its weights to 1/2^22.
    assert np.abs(ours - np.asarray(theirs, int)).max() <= 1


def test_random_crops_have_the_areas_and_aspects_that_are_allowed() -> None:
    # On a picture of its own coordinates a crop says from where to where it reaches.
    rows, columns = np.meshgrid(np.arange(96) * 2, np.arange(96) * 2, indexing="ij")
    picture = jnp.asarray(np.stack([rows, columns], -1), jnp.uint8)
    crop = RandomResizedCrop(min_area=0.2, max_area=0.5)
    crops = np.asarray(jax.jit(jax.vmap(crop, (0, None)))(KEYS[:64], picture), float)
    # The second row and the last but one lie 93 of 96 parts of a side apart.
    height = (crops[:, -2, :, 0].mean(1) - crops[:, 1, :, 0].mean(1)) / 2 * 96 / 93
    width = (crops[:, :, -2, 1].mean(1) - crops[:, :, 1, 1].mean(1)) / 2 * 96 / 93
    share, aspect = height * width / 96**2, width / height
    # Sides are whole pixels and values half of one: some 3 %.
    assert share.min() > 0.2 * 0.96
    assert share.max() < 0.5 * 1.04
    assert np.ptp(share) > 0.2
    assert aspect.min() > 0.75 * 0.96
    assert aspect.max() < 4 / 3 * 1.04
    assert np.ptp(aspect) > 0.4


def test_images_are_brought_to_a_size_with_and_without_a_crop() -> None:
    assert Augment()(KEYS[:2], IMAGES[:2], 8).shape == (2, 8, 8, 3)
    assert (RandomResizedCrop()(KEYS[0], IMAGES[0]) == IMAGES[0]).all()
    plain = np.asarray(Augment()(KEYS[:1], IMAGES[:1], 8))[0]
    assert (plain == np.asarray(resized(IMAGES[0], (0, 0), (12, 16), (8, 8)))).all()


def test_erasing_blackens_one_box_inside_of_the_image_with_its_probability() -> None:
    found, changed = erased(RandomErasing(0.75, min_area=0.1, max_area=0.3, value="black"))
    assert (found[changed] == 0).all()
    areas = changed.sum((1, 2))
    # 256 draws of probability 0.75: outside of 157..227 below 1e-6.
    assert 157 <= (areas > 0).sum() <= 227
    for box in changed[areas > 0]:
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert box.sum() == len(rows) * len(columns)
        # Sides are rounded: up to half a pixel more or less of each.
        assert (len(rows) - 0.5) * (len(columns) - 0.5) <= 0.3 * 12 * 16
        assert (len(rows) + 0.5) * (len(columns) + 0.5) >= 0.1 * 12 * 16
        assert (len(columns) - 0.5) / (len(rows) + 0.5) <= 10 / 3


def test_erased_noise_is_no_constant() -> None:
    found, changed = erased(RandomErasing(1.0, min_area=0.2))
    values = found[changed].astype(float)
    # About 10,000 values from N(127.5, 64), cut off at two deviations; less what its floor takes away.
    assert values.mean() == pytest.approx(127, abs=3)
    assert values.std() == pytest.approx(60, abs=4)


@pytest.fixture(scope="module")
def mixed() -> dict[str, tuple[Any, Any, Targets]]:
    found = {}
    for name, mix in {"mixup": Mix(mixup=1.0), "cutmix": Mix(cutmix=1.0), "both": Mix(mixup=1.0, cutmix=1.0)}.items():
        images, targets = jax.jit(mix.__call__)(KEYS, IMAGES, LABELS)
        found[name] = (mix, np.asarray(images), targets)
    return found


def test_neighbours_are_mixed_in_pairs(mixed: Any) -> None:
    _, _, targets = mixed["mixup"]
    assert (targets.first == LABELS).all()
    assert (np.asarray(targets.second) == np.arange(256) ^ 1).all()


def test_mixup_is_its_formula_with_the_share_it_tells(mixed: Any) -> None:
    _, images, targets = mixed["mixup"]
    own, other = (np.asarray(x, np.float64) for x in (IMAGES, IMAGES[np.arange(256) ^ 1]))
    share = np.asarray(targets.share, np.float64)[:, None, None, None]
    # A few roundings of float32 values up to 255.
    np.testing.assert_allclose(images, share * own + (1 - share) * other, atol=1e-4)
    # Beta(1, 1) is uniform: the mean of 256 is within 5 / sqrt(12 * 256) of a half.
    assert abs(share.mean() - 0.5) < 0.09


def test_cutmix_takes_a_box_whose_share_it_tells(mixed: Any) -> None:
    _, images, targets = mixed["cutmix"]
    own, other = np.asarray(IMAGES), np.asarray(IMAGES[np.arange(256) ^ 1])
    taken = (images == other).all(-1)
    assert (taken | (images == own).all(-1)).all()
    np.testing.assert_allclose(1 - taken.mean((1, 2)), targets.share, atol=1e-6)
    for box in taken:
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert box.sum() == len(rows) * len(columns)


def test_where_both_are_on_about_half_is_cut(mixed: Any) -> None:
    _, images, _ = mixed["both"]
    whole = (images == np.round(images)).all((1, 2, 3))
    # 256 fair coins: outside of 88..168 below 1e-6.
    assert 88 <= whole.sum() <= 168


def test_a_pair_is_mixed_alike_in_any_batch(mixed: Any) -> None:
    mix, images, _ = mixed["both"]
    part, _ = jax.jit(mix.__call__)(KEYS[10:20], IMAGES[10:20], LABELS[10:20])
    np.testing.assert_allclose(part, images[10:20], rtol=1e-6)  # another program may fuse other operations


def test_targets_of_mixed_images_by_hand() -> None:
    targets = Targets(jnp.array([0, 2]), jnp.array([1, 2]), jnp.array([0.75, 0.3]))
    np.testing.assert_allclose(targets.soft(3, 0.0), [[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]], atol=1e-7)
    smooth = 0.9 * np.array([[0.75, 0.25, 0], [0, 0, 1]]) + 0.1 / 3
    np.testing.assert_allclose(targets.soft(3, 0.1), smooth, rtol=1e-6)
    assert targets.main.tolist() == [0, 2]


def test_nothing_is_mixed_without_strength() -> None:
    images, targets = Mix()(KEYS, IMAGES, LABELS)
    assert images is IMAGES
    assert (targets.share == 1).all()


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: RandomResizedCrop(min_area=0), "data.augment.resized_crop.min_area is 0"),
        (lambda: RandomResizedCrop(0.08, max_aspect=0.5), "data.augment.resized_crop.max_aspect is 0.5"),
        (lambda: RandomErasing(probability=2), "data.augment.erasing.probability is 2"),
        (lambda: RandomErasing(min_area=0.5), "data.augment.erasing.min_area is 0.5"),
        (lambda: Mix(mixup=-1), "data.augment.mix.mixup is -1"),
        (lambda: Mix(switch=2), "data.augment.mix.switch is 2"),
    ],
)
def test_a_wrong_strength_is_refused_by_name(make: Any, field: str) -> None:
    with pytest.raises(UsageError, match=field):
        make()
