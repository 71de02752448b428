import flax.linen as nn
import jax
import pytest

from convjax.inspect import count
from convjax.layers import Conv
from convjax.models import MODELS


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet18", 1.814),
        ("resnet34", 3.664),
        ("resnet50", 4.089),
        ("densenet121", 2.834),
        ("alexnet", 0.714),
        ("vgg16", 15.470),
        ("googlenet", 1.498),
        ("resnext50_32x4d", 4.230),
        ("wide_resnet50_2", 11.398),
        ("mobilenet_v2", 0.301),
        ("mobilenet_v3_small", 0.057),
        ("efficientnet_b0", 0.386),
        ("convnext_tiny", 4.456),
    ],
)
def test_multiply_accumulates_are_those_that_torchvision_publishes(name: str, published: float) -> None:
    entry = MODELS[name]
    # Published in units of 1e9, to three digits after the point.
    assert round(count.multiply_accumulates(entry.module, entry.image) / 1e9, 3) == published


@pytest.mark.parametrize(
    ("fields", "expected", "parameters"),
    [
        # Output pixels x output channels x taps x input channels a group.
        ({"kernel_size": 3}, 8 * 8 * 6 * 9 * 4, 6 * 9 * 4),
        ({"kernel_size": 3, "stride": 2}, 4 * 4 * 6 * 9 * 4, 6 * 9 * 4),
        ({"kernel_size": (1, 5), "dilation": (1, 2)}, 8 * 8 * 6 * 5 * 4, 6 * 5 * 4),
        ({"kernel_size": 3, "groups": 2}, 8 * 8 * 6 * 9 * 2, 6 * 9 * 2),
        # Computed by windows rather than as a convolution: the same count.
        ({"kernel_size": 7, "padding": "VALID"}, 2 * 2 * 6 * 49 * 4, 6 * 49 * 4),
    ],
)
def test_a_convolution_by_hand(fields: dict[str, object], expected: int, parameters: int) -> None:
    class One(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            return Conv(6, **fields)(images)  # type: ignore[arg-type]

    assert count.multiply_accumulates(One(), (8, 8, 4)) == expected
    assert count.parameters(One(), (8, 8, 4)) == parameters


def test_layers_inside_a_scan_count_as_often_as_they_run() -> None:
    class Repeated(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            def body(module: nn.Module, x: jax.Array, _: None) -> tuple[jax.Array, None]:
                return nn.Dense(5, use_bias=False, parent=module)(x), None

            scan = nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True}, length=7)
            return scan(self, images.reshape(1, -1), None)[0]

    # The image has five values: a 5 x 5 product, seven times.
    assert count.multiply_accumulates(Repeated(), (1, 5, 1)) == 7 * 25
    assert count.parameters(Repeated(), (1, 5, 1)) == 7 * 25
