from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.data.augment import Augment, Cutout, HorizontalFlip, RandomCrop
from convjax.errors import UsageError

IMAGES = jnp.arange(1, 1 + 64 * 6 * 8 * 2, dtype=jnp.int32).reshape(64, 6, 8, 2) % 251 + 1
KEYS = jax.random.split(jax.random.key(0), 64)


def apply(augment: Augment, keys: jax.Array = KEYS) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(augment(keys, IMAGES.astype(jnp.uint8)))


ORIGINAL = np.asarray(IMAGES.astype(jnp.uint8))


def test_no_strength_changes_nothing() -> None:
    assert (apply(Augment()) == ORIGINAL).all()


def test_a_crop_is_a_shift_with_black_coming_into_view() -> None:
    shifts = set()
    for before, after in zip(ORIGINAL, apply(Augment(crop=RandomCrop(2))), strict=True):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)))
        windows = {(i, j): padded[i : i + 6, j : j + 8] for i in range(5) for j in range(5)}
        found = [shift for shift, window in windows.items() if (window == after).all()]
        assert len(found) == 1
        shifts.add(found[0])
    # 64 draws from 25 shifts: fewer than 15 different ones have a probability below 1e-6.
    assert len(shifts) >= 15


def test_a_crop_may_mirror_at_the_border() -> None:
    for before, after in zip(ORIGINAL, apply(Augment(crop=RandomCrop(2, border="reflect"))), strict=True):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)), mode="reflect")
        assert sum((padded[i : i + 6, j : j + 8] == after).all() for i in range(5) for j in range(5)) == 1
    with pytest.raises(UsageError, match=r"crop\.border is 'mirror': it must be one of zeros, reflect"):
        RandomCrop(2, border="mirror")  # type: ignore[arg-type]


def test_a_flip_mirrors_about_the_given_share_of_images() -> None:
    after = apply(Augment(flip=HorizontalFlip(0.5)))
    mirrored = [(a == b[:, ::-1]).all() for a, b in zip(after, ORIGINAL, strict=True)]
    same = [(a == b).all() for a, b in zip(after, ORIGINAL, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    # 64 fair coins: outside of 12..52 with a probability below 1e-6.
    assert 12 <= sum(mirrored) <= 52
    assert (apply(Augment(flip=HorizontalFlip(1.0))) == ORIGINAL[:, :, ::-1]).all()


def test_an_alternating_flip_is_drawn_once_and_turns_over_every_epoch() -> None:
    flip = HorizontalFlip(0.5, alternate=True)
    images, ids = jnp.asarray(ORIGINAL), jnp.arange(64)

    def seen(epoch: int) -> Any:
        return np.asarray(flip.alternated(jax.random.key(1), images, ids, jnp.full(64, epoch)))

    first = seen(0)
    mirrored = (first != ORIGINAL).any((1, 2, 3))
    assert 12 <= mirrored.sum() <= 52
    np.testing.assert_array_equal(first[~mirrored], ORIGINAL[~mirrored])
    np.testing.assert_array_equal(seen(1), first[:, :, ::-1])
    np.testing.assert_array_equal(seen(2), first)
    # Of several epochs in a batch, in any order, each example is as alone.
    epochs, order = jnp.arange(64) % 3, jnp.arange(64)[::-1]
    mixed = np.asarray(flip.alternated(jax.random.key(1), images[order], ids[order], epochs[order]))[::-1]
    expected = [seen(int(epoch))[i] for i, epoch in enumerate(epochs)]
    np.testing.assert_array_equal(mixed, expected)
    # What alternates is the step's to do.
    assert (apply(Augment(flip=flip)) == ORIGINAL).all()


def test_cutout_blackens_one_square_that_may_reach_over_the_border() -> None:
    areas = set()
    for before, after in zip(ORIGINAL, apply(Augment(cutout=Cutout(3))), strict=True):
        black = (after == 0).all(axis=-1)
        assert (after[~black] == before[~black]).all()
        rows, columns = np.flatnonzero(black.any(axis=1)), np.flatnonzero(black.any(axis=0))
        assert black.sum() == len(rows) * len(columns)
        assert (np.diff(rows) == 1).all()
        assert (np.diff(columns) == 1).all()
        areas.add((len(rows), len(columns)))
    assert (3, 3) in areas
    assert areas <= {(h, w) for h in (2, 3) for w in (2, 3)}


def test_an_example_is_augmented_alike_in_any_batch() -> None:
    augment = Augment(RandomCrop(2), HorizontalFlip(0.5), Cutout(3))
    whole = apply(augment)
    part = np.asarray(augment(KEYS[10:20], IMAGES[10:20].astype(jnp.uint8)))
    assert (whole[10:20] == part).all()


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: RandomCrop(-1), "data.augment.crop.padding is -1"),
        (lambda: HorizontalFlip(1.5), "data.augment.flip.probability is 1.5"),
        (lambda: HorizontalFlip(alternate=True), "data.augment.flip.alternate is True: it must be off while"),
        (lambda: Cutout(-2), "data.augment.cutout.size is -2"),
    ],
)
def test_a_wrong_strength_is_refused_by_name(make: type, field: str) -> None:
    with pytest.raises(UsageError, match=field):
        make()
