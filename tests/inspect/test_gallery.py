import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import KEY

from convjax.data.splits import Normalise
from convjax.errors import UsageError
from convjax.inspect import gallery, pictures
from convjax.inspect.exciting import most_exciting
from convjax.inspect.filters import first_layer
from convjax.inspect.optimise import optimised
from convjax.models import MLP, CifarResNet

PATTERN = np.array([[1, 0, 0], [1, 0, 1], [0, 1, 1]], np.float32)


class Matched(nn.Module):
    """Its first filter answers most to PATTERN, its second to the negative."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        def kernel(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
            centred = (PATTERN - PATTERN.mean())[:, :, None]
            return jnp.asarray(np.stack([centred, -centred], axis=-1), dtype)

        x = nn.Conv(2, (3, 3), strides=2, padding=((0, 1), (0, 1)), use_bias=False, kernel_init=kernel, name="conv")(
            images
        )
        return nn.Dense(3, name="head")(x.reshape(len(x), -1))


@dataclasses.dataclass(frozen=True)
class Network:
    model: nn.Module
    variables: Mapping[str, Any]
    image: tuple[int, int, int] = (9, 8, 1)
    class_names: tuple[str, ...] = ("a", "b", "c")
    normalise: Normalise = Normalise((0.0,), (1.0,))


def network(model: nn.Module, image: tuple[int, int, int] = (9, 8, 1)) -> Network:
    return Network(model, model.init(KEY, jnp.zeros((1, *image)), train=False), image)


def search(found: Network, images: np.ndarray[Any, Any], **options: Any) -> Any:
    return most_exciting(found.model, found.variables, found.normalise, images, "conv", **options)


def test_a_known_filter_finds_its_own_pattern() -> None:
    images = np.random.default_rng(0).integers(100, 140, (50, 9, 8, 1), dtype=np.uint8)
    planted = np.rint(255 * PATTERN).astype(np.uint8)
    images[17, 2:5, 4:7, 0] = planted
    images[31, 4:7, 2:5, 0] = 255 - planted
    found = search(network(Matched()), images, count=3, batch_size=16)
    assert found.ids[:, 0].tolist() == [17, 31]
    assert found.places[:, 0].tolist() == [[1, 2], [2, 1]]
    np.testing.assert_array_equal(found.patch(images, 0, 0)[..., 0], planted)
    np.testing.assert_array_equal(found.patch(images, 1, 0)[..., 0], 255 - planted)
    # The filter's answer to its own pattern: the sum of squares of what is centred.
    np.testing.assert_allclose(found.values[0, 0], ((PATTERN - PATTERN.mean()) ** 2).sum(), rtol=1e-5)


def test_the_most_exciting_images_do_not_depend_on_the_batch_size() -> None:
    images = np.random.default_rng(1).integers(0, 255, (23, 9, 8, 1), dtype=np.uint8)
    subject = network(Matched())
    outputs: Any = nn.Conv(2, (3, 3), strides=2, padding=((0, 1), (0, 1)), use_bias=False).apply(
        {"params": subject.variables["params"]["conv"]}, images / np.float32(255)
    )
    expected = np.sort(np.asarray(outputs).max(axis=(1, 2)), axis=0)[::-1][:5].T
    seen: list[int] = []
    for batch_size in (7, 64):
        found = search(subject, images, count=5, batch_size=batch_size, advanced=seen.append)
        np.testing.assert_allclose(found.values, expected, rtol=1e-5)
        for channel, rank in np.ndindex(2, 5):
            value = outputs[(found.ids[channel, rank], *found.places[channel, rank], channel)]
            np.testing.assert_allclose(value, found.values[channel, rank], rtol=1e-5)
    assert seen == [7, 14, 21, 23, 23]
    assert search(subject, images[:2], count=5).ids.shape == (2, 2)


def test_the_first_layers_filters_are_its_kernel() -> None:
    subject = network(Matched())
    part, values = first_layer(subject.model, subject.variables, subject.image)
    assert part == "conv"
    np.testing.assert_allclose(values[0, :, :, 0], PATTERN - PATTERN.mean(), rtol=1e-6)
    dense = network(MLP(hidden=(5,)), (4, 3, 2))
    _, values = first_layer(dense.model, dense.variables, dense.image)
    assert values.shape == (5, 4, 3, 2)
    image = jax.random.normal(KEY, (1, 4, 3, 2))
    hidden = (values * image).sum(axis=(1, 2, 3))
    logits: Any = dense.model.apply(dense.variables, image, train=False)
    head = dense.variables["params"]["head"]
    np.testing.assert_allclose(np.maximum(hidden, 0) @ head["kernel"] + head["bias"], logits[0], rtol=1e-4, atol=1e-6)


def test_an_image_made_for_a_channel_has_the_colour_that_it_wants() -> None:
    class Colours(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            def kernel(*_: Any) -> jax.Array:
                return jnp.array([[1.0, -1], [-1, 1], [-1, 1]])[None, None]

            return nn.relu(nn.Conv(2, (1, 1), use_bias=False, kernel_init=kernel, name="conv")(images)).mean(
                axis=(1, 2)
            )

    model = Colours()
    normalise = Normalise((0.5,) * 3, (0.25,) * 3)
    variables = model.init(KEY, jnp.zeros((1, 8, 8, 3)), train=False)
    red, cyan = optimised(model, variables, normalise, (8, 8, 3), "conv", [0, 1], steps=200)
    assert (red[..., 0] > 0.9).all()
    assert (red[..., 1:] < 0.1).all()
    assert (cyan[..., 0] < 0.1).all()
    assert (cyan[..., 1:] > 0.9).all()
    with pytest.raises(UsageError, match="no channel 2 of 'conv': it has the channels from 0 to 1"):
        optimised(model, variables, normalise, (8, 8, 3), "conv", [0, 2], steps=1)


def test_pictures_keep_zero_sign_and_extremes() -> None:
    filters = pictures.around_zero(np.array([[[[0.0], [2.0]], [[-1.0], [-2.0]]], np.zeros((2, 2, 1))], np.float32))
    assert filters[..., 0].tolist() == [[[128, 255], [64, 0]], [[128, 128], [128, 128]]]
    red, white, blue = pictures.signed(np.array([[1.0, 0.0, -1.0]], np.float32))[0].astype(int)
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert white.min() > 240
    assert pictures.heat(np.array([[0.0, 3.0]], np.float32)).sum(axis=-1).tolist()[0][0] < 20
    assert not np.isnan(pictures.heat(np.zeros((2, 2), np.float32))).any()
    grey = np.full((8, 8, 1), 100, np.uint8)
    assert pictures.overlay(grey, np.eye(2, dtype=np.float32)).shape == (8, 8, 3)
    first, flat = pictures.feature_maps(np.array([[[1.0, 5.0], [3.0, 5.0]]], np.float32))
    assert first[..., 0].tolist() == [[0, 255]]
    assert flat[..., 0].tolist() == [[0, 0]]


def test_a_stage_stands_for_its_last_block() -> None:
    model = CifarResNet(depth=14, width=2)
    shapes = jax.eval_shape(lambda: model.init(KEY, jnp.zeros((1, 8, 8, 1)), train=False))
    subject = Network(model, shapes, (8, 8, 1))
    stages = ["stage1", "stage2", "stage3"]
    assert gallery.layers(subject) == ["stem", *stages]
    assert gallery.layers(subject, "stage*") == [name for stage in stages for name in (f"{stage}_block1", stage)]
    assert gallery.layers(subject, "*block2") == [f"{stage}_block2" for stage in stages]


def test_layers_are_taken_by_pattern() -> None:
    subject = network(Matched())
    assert gallery.layers(subject) == ["conv"]
    assert gallery.layers(subject, "c*") == ["conv"]
    with pytest.raises(UsageError, match="--layers 'head' matches no layer that returns images: known are: conv"):
        gallery.layers(subject, "head")
    assert gallery.layers(network(MLP(hidden=(4,)))) == []
