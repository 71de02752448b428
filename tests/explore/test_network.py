from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from convjax.data.images import Crop
from convjax.data.splits import Normalise
from convjax.errors import UsageError
from convjax.explore.network import Network
from convjax.layers import Conv, ConvNormAct
from convjax.models import CifarResNet
from convjax.train.weights import Weights

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))


class Linear(nn.Module):
    """Convolutions without activations: each unit's gradient is not zero wherever it looks."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = Conv(4, 3, name="first")(images)
        x = Conv(4, 3, stride=2, name="second")(x)
        x = Conv(5, 3, dilation=2, name="third")(x)
        return nn.Dense(3, name="head")(x.mean((1, 2)))


def network(model: Any) -> Network:
    variables = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(jnp.zeros((1, 20, 20, 3)))
    normalise = Normalise((0.5,) * 3, (0.25,) * 3)
    return Network(Weights(model, (20, 20, 3), ("a", "b", "c"), normalise, Crop(), {}, variables))


@pytest.fixture(scope="module")
def linear() -> Network:
    return network(Linear())


@pytest.mark.parametrize(
    ("part", "unit", "box"),
    [
        # By hand: a unit of the first sees one pixel around it; each of the second (at 2i) two around 2i; the third
        # taps i - 2, i, i + 2 of the second, four pixels apart. The image ends where the field would go on.
        ("first", (9, 4), (8, 3, 3, 3)),
        ("first", (0, 19), (0, 18, 2, 2)),
        ("second", (5, 5), (8, 8, 5, 5)),
        ("third", (5, 4), (4, 2, 13, 13)),
    ],
)
def test_a_unit_looks_at_its_receptive_field(
    linear: Network, part: str, unit: tuple[int, int], box: tuple[int, ...]
) -> None:
    assert linear.patch(IMAGE, 1, part, 1, unit).box == box


def test_a_change_outside_of_the_patch_does_not_change_the_unit(linear: Network) -> None:
    found = linear.patch(IMAGE, 1, "third", 2)
    assert found.value == linear.parts(IMAGE, 1)["third"][..., 2].max()
    outside = found.gradient.copy()
    outside[found.box[0] : found.box[0] + found.box[2], found.box[1] : found.box[1] + found.box[3]] = 0
    assert (found.gradient.max() > 0, outside.max()) == (True, 0)
    top, left, height, width = found.box
    values = np.array(IMAGE)
    kept = values[top : top + height, left : left + width].copy()
    values[:] = 255 - values
    values[top : top + height, left : left + width] = kept
    assert linear.patch(Image.fromarray(values), 1, "third", 2, found.unit).value == pytest.approx(
        found.value, rel=1e-5
    )


def test_a_unit_that_nothing_excites_has_no_gradient_but_a_patch() -> None:
    class Dead(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            x = ConvNormAct(CifarResNet(norm="none").layers(train=train), 2, name="part")(images - 1e3)
            return nn.Dense(3)(x.mean((1, 2)))

    dead = network(Dead())
    kernel = dead.weights.variables["params"]["part"]["conv"]
    kernel["kernel"] = jnp.ones_like(kernel["kernel"])
    found = dead.patch(IMAGE, 1, "part", 0, (10, 10))
    assert (found.value, found.box, found.gradient.max()) == (0, (9, 9, 3, 3), 0)


def test_parts_are_shown_once_and_probabilities_are_those_of_predict() -> None:
    residual = network(CifarResNet(depth=8, width=4, num_classes=3))
    parts = residual.parts(IMAGE, 1)
    # Stages repeat their last block and are left out.
    assert list(parts) == ["stem", "stage1_block1", "stage2_block1", "stage3_block1", "head"]
    assert "stage1_block1/conv1/conv" in residual.parts(IMAGE, 3)
    probabilities = residual.probabilities(IMAGE)
    np.testing.assert_allclose(probabilities, jax.nn.softmax(parts["head"]), rtol=1e-5)
    np.testing.assert_array_equal(probabilities, residual.weights.probabilities(residual.pixels(IMAGE)[None])[0])


@pytest.mark.parametrize(
    ("depth", "part", "channel", "unit", "message"),
    [
        (4, "first", 0, None, "depth is 4"),
        (1, "fourth", 0, None, "no feature maps 'fourth'"),
        (1, "head", 0, None, "no feature maps 'head'"),
        (1, "first", 4, None, "channel is 4: first has 4"),
        (1, "first", -1, None, "channel is -1"),
        (1, "first", 0, (20, 0), "first has 20 x 20"),
    ],
)
def test_what_is_not_there_is_named(
    linear: Network, depth: int, part: str, channel: int, unit: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        linear.patch(IMAGE, depth, part, channel, unit)
