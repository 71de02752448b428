from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import KEY

import convjax
from convjax.errors import UsageError
from convjax.inspect import attribution, cam
from convjax.inspect.features import perturbed

IMAGES = jax.random.normal(KEY, (3, 8, 8, 2))
CLASSES = jnp.array([2, 0, 1])


class Pooled(nn.Module):
    """Two convolutions, global average pooling, a linear layer: what class activation maps were made for."""

    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = self.activation(nn.Conv(5, (3, 3), strides=2, name="conv1")(images))
        x = nn.Conv(4, (3, 3), name="conv2")(x)
        return nn.Dense(3, name="head")(x.mean(axis=(1, 2)))


class Function(nn.Module):
    """Logits as a function of the images."""

    function: Callable[[jax.Array], jax.Array]

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        return self.function(images)


def made(model: nn.Module) -> tuple[nn.Module, Any]:
    variables = jax.jit(lambda x: model.init(KEY, x, train=False))(IMAGES)
    return model, jax.tree.map(lambda x: np.asarray(x) + 0.05, variables)


def linear(weights: jax.Array) -> Function:
    """Logit k is the sum of the image times weights[k]."""
    return Function(lambda images: jnp.einsum("nhwc,khwc->nk", images, weights))


def test_the_gradient_of_a_linear_network_is_its_weights() -> None:
    weights = jax.random.normal(KEY, (3, 8, 8, 2))
    found = attribution.gradient(linear(weights), {}, IMAGES, CLASSES)
    np.testing.assert_allclose(found, weights[CLASSES], rtol=1e-6)


def test_smoothgrad_without_noise_is_the_gradient() -> None:
    model, variables = made(Pooled(nn.tanh))
    smooth = attribution.smooth_gradient(model, variables, IMAGES, CLASSES, sigma=0.0, samples=3)
    plain = attribution.gradient(model, variables, IMAGES, CLASSES)
    np.testing.assert_allclose(smooth, plain, rtol=1e-5, atol=1e-8)
    assert np.abs(plain).max() > 1e-3


def test_smoothgrads_noise_has_the_deviation_of_a_share_of_each_images_range() -> None:
    # The gradient of a sum of cubes is 3 x^2; its mean under noise of deviation s is 3 (x^2 + s^2).
    cubes = Function(lambda images: (images**3).sum(axis=(1, 2, 3))[:, None].repeat(3, axis=1))
    images = IMAGES * jnp.array([1.0, 2.0, 4.0])[:, None, None, None]
    smooth = attribution.smooth_gradient(cubes, {}, images, CLASSES, sigma=0.2, samples=800)
    added = (smooth - 3 * images**2).mean(axis=(1, 2, 3)) / 3
    spans = images.max(axis=(1, 2, 3)) - images.min(axis=(1, 2, 3))
    np.testing.assert_allclose(added, (0.2 * spans) ** 2, rtol=0.05)


def test_integrated_gradients_sum_to_the_difference_of_logits() -> None:
    model, variables = made(Pooled(nn.tanh))
    baseline = 0.1 * jnp.ones((1, 8, 8, 2))

    def logit(images: jax.Array) -> jax.Array:
        return attribution.chosen(attribution.logits(model, variables, images), CLASSES)

    expected = logit(IMAGES) - logit(jnp.broadcast_to(baseline, IMAGES.shape))
    assert np.abs(expected).min() > 0.01
    errors = {}
    for steps in (4, 64):
        found = attribution.integrated_gradients(model, variables, IMAGES, CLASSES, baseline=baseline, steps=steps)
        errors[steps] = np.abs(found.sum(axis=(1, 2, 3)) - expected).max()
    assert errors[64] < 1e-5
    assert errors[4] > errors[64]


def test_occlusion_of_what_is_ignored_changes_nothing() -> None:
    weights = jnp.zeros((3, 8, 8, 2)).at[:, 5, 6, 0].set(1.0)
    found = attribution.occlusion(linear(weights), {}, IMAGES, CLASSES, window=3, stride=1)
    assert found.shape == (3, 8, 8, 1)
    near = np.zeros((8, 8), bool)
    near[3:8, 4:8] = True  # the pixels that some square together with (5, 6) covers
    np.testing.assert_array_equal(np.asarray(found)[:, ~near], 0.0)
    # Every square over (5, 6) itself takes away its value.
    np.testing.assert_allclose(found[:, 5, 6, 0], IMAGES[:, 5, 6, 0], rtol=1e-5)


@pytest.mark.parametrize("window", [8, 20])
def test_occlusion_of_everything_takes_away_the_whole_logit(window: int) -> None:
    weights = jax.random.normal(KEY, (3, 8, 8, 2))
    model = linear(weights)
    found = attribution.occlusion(model, {}, IMAGES, CLASSES, window=window, stride=2)
    whole = (IMAGES * weights[CLASSES]).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found, np.broadcast_to(whole[:, None, None, None], found.shape), rtol=1e-4)


def test_every_pixel_is_covered_though_the_stride_does_not_divide_the_image() -> None:
    found = attribution.occlusion(linear(jnp.ones((3, 8, 8, 2))), {}, 1 + IMAGES**2, CLASSES, window=3, stride=3)
    assert (np.asarray(found) > 0).all()
    with pytest.raises(UsageError, match="stride is 4: it must be from 1 to the window's 3 pixels"):
        attribution.occlusion(linear(jnp.ones((3, 8, 8, 2))), {}, IMAGES, CLASSES, window=3, stride=4)


def test_grad_cam_under_global_average_pooling_is_the_class_activation_map() -> None:
    model, variables = made(Pooled())
    found = cam.grad_cam(model, variables, IMAGES, CLASSES, "conv2")
    last = convjax.features(model, variables, IMAGES)["conv2"]
    weights = variables["params"]["head"]["kernel"][:, CLASSES].T
    # Zhou et al. 2015, equation 2.
    expected = jnp.einsum("nhwk,nk->nhw", last, weights)
    assert (expected < 0).any()
    np.testing.assert_allclose(found * 16, np.maximum(expected, 0), rtol=1e-4, atol=1e-6)


def test_grad_cam_lights_the_quadrant_on_which_the_answer_depends() -> None:
    class Quadrant(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            x = nn.relu(nn.Conv(6, (1, 1), name="conv")(images))
            quadrant = x[:, :4, 4:]
            return nn.Dense(3, name="head")(quadrant.reshape(len(x), -1) ** 2)

    model, variables = made(Quadrant())
    # Where the answer rises with the values of the quadrant alone, evidence outside of it is dark.
    images = jnp.zeros_like(IMAGES).at[:, :4, 4:].set(jnp.abs(IMAGES[:, :4, 4:]))
    variables["params"]["conv"]["bias"] = jnp.zeros(6)
    variables["params"]["head"]["kernel"] = jnp.abs(variables["params"]["head"]["kernel"])
    for method in (cam.grad_cam, cam.grad_cam_plus_plus):
        found = np.asarray(method(model, variables, images, CLASSES, "conv"))
        inside = found[:, :4, 4:]
        assert (inside.max(axis=(1, 2)) > 0).all()
        np.testing.assert_allclose(found.sum(), inside.sum(), rtol=1e-6)


def test_grad_cam_plus_plus_weights_are_those_of_the_papers_derivatives() -> None:
    """Equations 6 and 10 with Y = exp(logit), its second and third derivatives taken one unit at a time."""
    model, variables = made(Pooled())
    image, label = IMAGES[:1], CLASSES[0]
    values = convjax.features(model, variables, image)["conv2"][0]
    places = jnp.array(list(np.ndindex(*values.shape)))

    def score(t: jax.Array | float, place: jax.Array) -> jax.Array:
        change = jnp.zeros_like(values).at[tuple(place)].set(t)
        return jnp.exp(perturbed(model, variables, image, "conv2", change[None])[0, label])

    first = jax.grad(score)
    second = jax.grad(first)
    third = jax.grad(second)
    derivatives = jax.jit(jax.vmap(lambda place: jnp.stack([f(0.0, place) for f in (score, first, second, third)])))
    y, d1, d2, d3 = derivatives(places).T.reshape(4, *values.shape)
    alpha = d2 / (2 * d2 + values.sum(axis=(0, 1)) * d3)
    weights = (alpha * np.maximum(d1, 0)).sum(axis=(0, 1))
    expected = np.maximum((values * weights).sum(axis=-1), 0) / y[0, 0, 0]
    assert (expected > 0).any()
    found = cam.grad_cam_plus_plus(model, variables, image, CLASSES[:1], "conv2")
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-6)


def test_a_stage_is_changed_by_changing_its_last_block_though_it_is_recomputed() -> None:
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dense(2, use_bias=False, name="dense")(x)

    class Staged(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            x = images[:, 0, 0]
            for i in (1, 2):
                x = nn.remat(Block)(name=f"stage1_block{i}")(x)
            return 2 * x

    model, variables = made(Staged())
    plain: Any = model.apply(variables, IMAGES, train=False)
    change = jax.random.normal(KEY, (3, 2))
    np.testing.assert_array_equal(perturbed(model, variables, IMAGES, "stage1", 0 * change), plain)
    for name in ("stage1", "stage1_block2", "stage1_block2/dense"):
        slope = jax.grad(lambda x, name=name: perturbed(model, variables, IMAGES, name, x)[1, 0])(change)
        np.testing.assert_allclose(slope, [[0, 0], [2, 0], [0, 0]], rtol=1e-6)
    moved = perturbed(model, variables, IMAGES, "stage1_block1", change)
    last = variables["params"]["stage1_block2"]["dense"]["kernel"]
    np.testing.assert_allclose(moved, plain + 2 * change @ last, rtol=1e-4)


def test_the_second_call_of_a_part_can_be_changed_alone() -> None:
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            double = nn.Dense(2, use_bias=False, kernel_init=lambda *_: 3 * jnp.eye(2), name="shared")
            return double(double(images[:, 0, 0]))

    model = Twice()
    variables = model.init(KEY, IMAGES, train=False)
    plain = 9 * IMAGES[:, 0, 0]
    one = jnp.ones((3, 2))
    np.testing.assert_allclose(perturbed(model, variables, IMAGES, "shared", one), plain + 3, rtol=1e-5)
    np.testing.assert_allclose(perturbed(model, variables, IMAGES, "shared#2", one), plain + 1, rtol=1e-5)


def test_what_is_no_layer_or_no_image_is_named() -> None:
    model, variables = made(Pooled())
    with pytest.raises(UsageError, match="no part 'conv3': did you mean conv"):
        cam.grad_cam(model, variables, IMAGES, CLASSES, "conv3")
    with pytest.raises(UsageError, match="no part 'conv3'"):
        perturbed(model, variables, IMAGES, "conv3", jnp.zeros(()))
    with pytest.raises(UsageError, match="the output of 'head' is no batch of images"):
        cam.grad_cam(model, variables, IMAGES, CLASSES, "head")
