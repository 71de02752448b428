"""Kernels for other numbers of input channels: by hand, and by the law that grey images stay what they were."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax import ops
from convjax.data.splits import Normalise
from convjax.train.channels import mix, normalisation, rechannelled

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 3, 5)).astype(np.float32)


def test_one_channel_has_the_sum_and_more_have_the_kernels_again() -> None:
    red, green, blue = (KERNEL[:, :, c] for c in range(3))
    expected: dict[int, list[Any]] = {
        1: [red + green + blue],
        2: [red + blue, green],
        3: [red, green, blue],
        4: [red / 2, green, blue, red / 2],
        6: [red / 2, green / 2, blue / 2] * 2,
    }
    for channels, parts in expected.items():
        found = rechannelled(KERNEL, channels)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.stack(parts, axis=2), rtol=1e-6)
    np.testing.assert_array_equal(rechannelled(KERNEL, 3), KERNEL)
    np.testing.assert_allclose(rechannelled(KERNEL[:, :, :1], 3), np.repeat(KERNEL[:, :, :1] / 3, 3, axis=2), rtol=1e-6)


@pytest.mark.parametrize("old", [1, 2, 3, 5])
@pytest.mark.parametrize("new", [1, 2, 3, 4, 7, 12])
def test_an_image_alike_in_all_channels_gives_the_same_output(old: int, new: int) -> None:
    generator = np.random.default_rng(1)
    kernel = generator.normal(size=(3, 3, old, 5)).astype(np.float32)
    grey = generator.normal(size=(2, 6, 6, 1)).astype(np.float32)
    before, after = (
        ops.conv2d(jnp.repeat(jnp.asarray(grey), channels, axis=-1), jax.device_put(k), padding=1)
        for channels, k in ((old, kernel), (new, rechannelled(kernel, new)))
    )
    # Sums of up to 108 products of numbers near 1, in another order.
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mix(old, new).sum(axis=1), 1)


def test_channels_take_the_normalisation_of_those_that_they_come_from() -> None:
    imagenet = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert normalisation(imagenet, 3) == imagenet
    one, two, four = (normalisation(imagenet, n) for n in (1, 2, 4))
    assert one.mean == pytest.approx([(0.485 + 0.456 + 0.406) / 3])
    assert one.std == pytest.approx([(0.229 + 0.224 + 0.225) / 3])
    assert two.mean == pytest.approx([(0.485 + 0.406) / 2, 0.456])
    assert four.mean == pytest.approx([0.485, 0.456, 0.406, 0.485])
    assert normalisation(Normalise((0.3,), (0.2,)), 3) == Normalise((0.3,) * 3, (0.2,) * 3)
