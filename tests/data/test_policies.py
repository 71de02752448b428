"""Policies: that what an image becomes is one of the things that the published tables allow."""

import colorsys
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.data import operations, policies
from convjax.data.augment import Augment
from convjax.data.autoaugment import POLICIES
from convjax.data.colour import ColourJitter, turned
from convjax.data.policies import AugMix, AutoAugment, RandAugment, TrivialAugmentWide
from convjax.errors import UsageError

IMAGE = jnp.asarray(np.random.default_rng(1).integers(30, 220, (20, 20, 3)), jnp.uint8)
KEYS = jax.random.split(jax.random.key(0), 200)


def of(policy: Any, keys: jax.Array = KEYS) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(jax.jit(jax.vmap(lambda key: policy(key, IMAGE)))(keys))


def names(images: Any, strength: float, space: Any) -> list[str]:
    """Returns which single operation of a strength made each image."""

    @jax.jit
    def performed(index: jax.Array, sign: jax.Array) -> jax.Array:
        every = policies.magnitudes(IMAGE, jnp.float32(strength), space, operations.NAMES)
        return operations.apply(operations.chosen(operations.NAMES, index, IMAGE, sign * every[index]), IMAGE)

    found, made = [], []
    for index, name in enumerate(operations.NAMES):
        for sign in (1, -1) if name in policies.SIGNED else (1,):
            found.append(name)
            made.append(np.asarray(performed(index, jnp.float32(sign)), int))
    distances = np.abs(np.asarray(images, int)[:, None] - np.stack(made)).mean((2, 3, 4))
    # The same but for roundings, of which another program may fuse others.
    assert distances.min(1).max() < 0.01
    return [found[index] for index in distances.argmin(1)]


def test_randaugment_takes_all_operations_alike_at_its_magnitude() -> None:
    found = Counter(names(of(RandAugment(operations=1, magnitude=18)), 18 / 30, policies._LARGEST))
    assert set(found) == set(policies.RANDOM)
    # 200 draws from 14: outside of 2..35 with a probability below 1e-4.
    assert all(2 <= count <= 35 for count in found.values())


def test_half_of_the_operations_are_left_out_at_probability_a_half() -> None:
    unchanged = (of(RandAugment(operations=1, magnitude=18, probability=0.5)) == np.asarray(IMAGE)).all((1, 2, 3))
    # Identity too: 0.5 + 0.5 / 14 of 200; five standard deviations are 35.
    assert abs(unchanged.sum() - 107) < 35


@pytest.mark.parametrize(
    ("name", "strength", "narrow", "wide"),
    [
        ("shear_x", 1.0, 0.3, 0.99),
        ("translate_x", 1.0, 20 * 150 / 331, 32),
        ("rotate", 0.5, 15, 67.5),
        ("brightness", 1 / 3, 0.3, 0.33),
        ("posterize", 0.0, 8, 8),
        ("posterize", 1.0, 4, 2),
        ("solarize", 0.2, 204, 204),
        ("equalize", 0.7, 0, 0),
    ],
)
def test_magnitudes_are_those_of_the_papers(name: Any, strength: float, narrow: float, wide: float) -> None:
    for space, expected in ((policies._LARGEST, narrow), (policies._WIDE, wide)):
        (found,) = policies.magnitudes(IMAGE, jnp.float32(strength), space, (name,))
        assert float(found) == pytest.approx(expected, rel=1e-6)


def test_trivialaugment_takes_any_strength_and_nothing_at_probability_0() -> None:
    images = of(TrivialAugmentWide(1.0))
    # 14 operations, 9 of 31 magnitudes and two signs: few of 200 are equal.
    assert len({image.tobytes() for image in images}) > 100
    assert (of(TrivialAugmentWide()) == np.asarray(IMAGE)).all()


def test_autoaugment_has_the_papers_25_pairs() -> None:
    assert {name: len(pairs) for name, pairs in POLICIES.items()} == dict.fromkeys(("imagenet", "cifar10", "svhn"), 25)
    # The first lines of the paper's tables 7 (CIFAR-10), 8 (SVHN) and 9 (ImageNet).
    assert POLICIES["cifar10"][0] == (("invert", 0.1, 0), ("contrast", 0.2, 6))
    assert POLICIES["svhn"][0] == (("shear_x", 0.9, 4), ("invert", 0.2, 0))
    assert POLICIES["imagenet"][0] == (("posterize", 0.4, 8), ("rotate", 0.6, 9))
    chosen = {choice[0] for pairs in POLICIES.values() for pair in pairs for choice in pair}
    assert chosen <= set(operations.NAMES)


def test_autoaugment_applies_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    only = ((("solarize", 1.0, 3), ("invert", 1.0, 0)),)
    monkeypatch.setattr(policies, "POLICIES", {"imagenet": only})
    solarised = operations.perform("solarize", IMAGE, 255 * 6 / 9)
    expected = 255 - np.asarray(solarised)
    assert (of(AutoAugment("imagenet"), KEYS[:4]) == expected).all()


def test_augmix_is_the_image_where_chains_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "_MIXED", ("identity",))
    # Weights of sum 1: only the last rounding is left.
    assert (of(AugMix(severity=3), KEYS[:8]) == np.asarray(IMAGE)).all()
    monkeypatch.setattr(policies, "_MIXED", ("invert",))
    # Chains of one, two and three inversions: each image is `a x + (1 - a) (255 - x)`, the same a for all its pixels.
    x, mixed = np.asarray(IMAGE, float), of(AugMix(severity=3), KEYS[:8]).astype(float)
    slopes = ((mixed - 127.5) * (x - 127.5)).sum((1, 2, 3)) / ((x - 127.5) ** 2).sum()
    assert np.abs(mixed - 127.5 - slopes[:, None, None, None] * (x - 127.5)).max() <= 1
    assert (np.abs(slopes) <= 1.01).all()
    assert np.ptp(slopes) > 0.3


def test_hues_turn_as_colorsys_has_them() -> None:
    for turn in (0.2, -0.4):
        expected = []
        for pixel in np.asarray(IMAGE).reshape(-1, 3) / 255:
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            expected.append([255 * c for c in colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)])
        # Rounded to the nearest here.
        assert np.abs(np.asarray(turned(IMAGE, turn), float).reshape(-1, 3) - expected).max() <= 0.501


def test_colour_jitter_keeps_to_its_reach() -> None:
    images = of(ColourJitter(brightness=0.4)).astype(float) / np.asarray(IMAGE)
    means = images.mean((1, 2, 3))
    assert means.min() > 0.58
    assert means.max() < 1.41
    assert np.ptp(means) > 0.6
    assert (of(ColourJitter()) == np.asarray(IMAGE)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandAugment(magnitude=31), "data.augment.rand.magnitude is 31: it must be from 0 to 30"),
        (lambda: RandAugment(fill="white"), "data.augment.rand.fill is 'white': it must be one of black, grey"),  # type: ignore[arg-type]
        (lambda: TrivialAugmentWide(2), "data.augment.trivial.probability is 2"),
        (lambda: AutoAugment("mnist"), "data.augment.auto.policy is 'mnist'"),  # type: ignore[arg-type]
        (lambda: AugMix(width=0), "data.augment.augmix.width is 0"),
        (lambda: ColourJitter(hue=0.6), "data.augment.colour.hue is 0.6: it must be from 0 to 0.5"),
        (lambda: Augment(repeats=0), "data.augment.repeats is 0"),
    ],
)
def test_a_wrong_field_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
