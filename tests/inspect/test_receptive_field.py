from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import KEY

from convjax.errors import UsageError
from convjax.inspect.features import output_of
from convjax.inspect.receptive_field import Geometry, fields, geometry
from convjax.models import VGG, CifarResNet, DenseNet, ResNet


def by_hand(layers: list[tuple[int, int, int]]) -> Geometry:
    """The recursion of Araujo et al. 2019, equations 2 and 3, over (window, stride, padding before)."""
    size, stride, offset = 1, 1, 0
    for window, step, padding in layers:
        size += (window - 1) * stride
        offset -= padding * stride
        stride *= step
    return Geometry((size, size), (stride, stride), (offset, offset))


def test_vgg16_sees_196_pixels_before_its_last_pooling() -> None:
    model = VGG(stage_sizes=(2, 2, 3, 3, 3), width=1, hidden=(1,))
    convolution, pooling = (3, 1, 1), (2, 2, 0)
    layers = [convolution] * 2 + [pooling] + [convolution] * 2 + ([pooling] + [convolution] * 3) * 3
    expected = by_hand(layers)
    assert expected.size == (196, 196)
    assert geometry(model, (224, 224, 3), "stage5_norm3") == expected


def test_resnet50_sees_427_pixels_with_its_strides_in_the_middle_convolution() -> None:
    model = ResNet(width=1)
    layers = [(7, 2, 3), (3, 2, 1)]
    for stage, blocks in enumerate((3, 4, 6, 3)):
        layers += [(3, 2 if stage and not block else 1, 1) for block in range(blocks)]
    expected = by_hand(layers)
    # Larger than the image: a higher one must be taken. 427 is what is known of torchvision's network.
    assert expected.size == (427, 427)
    assert geometry(model, (224, 224, 3), "stage4") == expected


def test_squeeze_and_excitation_sees_the_whole_image() -> None:
    model = CifarResNet(depth=8, width=16, attention="se")
    assert geometry(model, (16, 16, 3), "stage1") is None
    found = fields(model, (16, 12, 3), "stage1")
    assert (found.rows == [0, 16]).all()
    assert (found.columns == [0, 12]).all()
    assert geometry(model, (16, 16, 3), "stem") == Geometry((3, 3), (1, 1), (-1, -1))


class Everything(nn.Module):
    """Whatever moves numbers about: dilation, transposed convolution, windows by reshape, shifts, scans, choices."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Conv(2, (3, 2), kernel_dilation=(2, 1), padding="VALID", name="dilated")(images)
        x = nn.ConvTranspose(3, (3, 3), strides=(2, 2), name="transposed")(jnp.tanh(x))
        x = jnp.pad(x, ((0, 0), (1, 1), (0, 2), (0, 0)))[:, ::-1]
        n, h, w, c = x.shape
        x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).sum(axis=(2, 4))
        x = nn.Conv(3, (1, 3), feature_group_count=3, name="grouped")(x)
        x = jnp.concatenate([x, jax.lax.stop_gradient(jnp.ones_like(x))], axis=-1)

        def step(carry: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
            return row, carry + row

        _, x = jax.lax.scan(step, jnp.zeros_like(x[:, 0]), x.swapaxes(0, 1), reverse=True)
        x = x.swapaxes(0, 1)
        x = jax.lax.cond(jnp.array(True), lambda y: y * 2, lambda y: y, x)
        x = nn.Conv(2, (1, 1), name="last")(x)
        return x.mean(axis=(1, 2))


def support(model: nn.Module, image: tuple[int, int, int], part: str) -> tuple[np.ndarray[Any, Any], ...]:
    """The first row and column, and those after the last, with a gradient that is not zero: the definition itself."""
    variables = jax.jit(lambda: model.init(KEY, jnp.zeros((1, *image)), train=False))()

    def units(pixels: jax.Array) -> jax.Array:
        output = output_of(model, variables, pixels[None], part)[0]
        return (output * jnp.arange(1.0, 1 + output.shape[-1])).sum(axis=-1)

    slopes = jax.jit(jax.vmap(jax.jacrev(units)))(jax.random.normal(KEY, (4, *image)))
    hit = np.abs(slopes).sum(axis=(0, -1)) > 0
    found = []
    for axis in (3, 2):
        line = hit.any(axis=axis)
        first, last = line.argmax(axis=-1), line.shape[-1] - line[..., ::-1].argmax(axis=-1)
        found.append(np.stack([first, last], axis=-1) * line.any(axis=-1, keepdims=True))
    return tuple(found)


@pytest.mark.parametrize(
    ("model", "image", "part"),
    [
        (CifarResNet(depth=8, width=2, activation="tanh"), (9, 8, 1), "stage2"),
        (CifarResNet(depth=8, width=2, shortcut="B", activation="tanh"), (6, 5, 1), "stage3"),  # by windows
        (
            DenseNet(block_sizes=(1, 1), growth=4, stem_features=4, stem="cifar", activation="tanh"),
            (16, 16, 1),
            "block2",
        ),
        (Everything(), (11, 9, 1), "last"),
        (Everything(), (11, 9, 1), "transposed"),
    ],
    ids=["resnet", "tiny images", "densenet", "everything", "transposed"],
)
def test_fields_are_where_the_gradient_is(model: nn.Module, image: tuple[int, int, int], part: str) -> None:
    found = fields(model, image, part)
    rows, columns = support(model, image, part)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.columns, columns)
    row, column = found.rows.shape[0] - 1, found.rows.shape[1] // 2
    assert found.box(row, column) == (slice(*rows[row, column]), slice(*columns[row, column]))


def test_what_it_does_not_know_sees_all_that_went_in() -> None:
    class Sorted(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            return nn.Conv(1, (1, 1), name="conv")(jnp.sort(images[:, 2:5], axis=2)).mean(axis=(1, 2))

    found = fields(Sorted(), (8, 6, 1), "conv")
    assert (found.rows == [2, 5]).all()
    assert (found.columns == [0, 6]).all()


def test_a_layer_without_images_has_no_field() -> None:
    model = CifarResNet(depth=8, width=2)
    with pytest.raises(UsageError, match="the output of 'head' is no batch of images"):
        fields(model, (8, 8, 1), "head")
    with pytest.raises(UsageError, match="no part 'stage4': did you mean"):
        fields(model, (8, 8, 1), "stage4")
