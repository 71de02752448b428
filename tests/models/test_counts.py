"""The counts that `convjax models` shows are those of the models."""

import pytest
from test_parameter_counts import PUBLISHED

from convjax.inspect import count
from convjax.models import MODELS, counts

CHEAP = {
    "airbench94", "alexnet", "efficientnet_lite0", "lenet5", "mlp", "mobilenet_v2", "mobilenet_v3_small", "plain20",
    "resnet18", "resnet20", "resnetv2_20", "vgg11",
}  # fmt: skip
TORCHVISION = {
    # Billions, to three digits after the point: what the descriptions of torchvision 0.29.1's weights say.
    # EfficientNet-B2 is missing since its weights there take 288 pixels, not the paper's 260.
    "alexnet": 0.714, "convnext_base": 15.355, "convnext_large": 34.361, "convnext_small": 8.684,
    "convnext_tiny": 4.456, "densenet121": 2.834, "densenet161": 7.728, "densenet169": 3.360, "densenet201": 4.291,
    "efficientnet_b0": 0.386, "efficientnet_b1": 0.687, "efficientnet_b3": 1.827, "efficientnet_b4": 4.394,
    "efficientnet_b5": 10.266, "efficientnet_b6": 19.068, "efficientnet_b7": 37.746, "googlenet": 1.498,
    "mobilenet_v2": 0.301, "mobilenet_v3_large": 0.217, "mobilenet_v3_small": 0.057, "resnet101": 7.801,
    "resnet152": 11.514, "resnet18": 1.814, "resnet34": 3.664, "resnet50": 4.089, "resnext101_32x8d": 16.414,
    "resnext50_32x4d": 4.230, "vgg11": 7.609, "vgg11_bn": 7.609, "vgg13": 11.308, "vgg13_bn": 11.308, "vgg16": 15.470,
    "vgg16_bn": 15.470, "vgg19": 19.632, "vgg19_bn": 19.632, "wide_resnet101_2": 22.753, "wide_resnet50_2": 11.398,
}  # fmt: skip


def test_every_named_model_is_counted_and_its_parameters_are_the_published_ones() -> None:
    assert list(counts()) == list(MODELS)
    assert {name: found.parameters for name, found in counts().items()} == PUBLISHED


@pytest.mark.parametrize("name", TORCHVISION)
def test_multiply_accumulates_are_those_that_torchvision_publishes(name: str) -> None:
    assert round(counts()[name].multiply_accumulates / 1e9, 3) == pytest.approx(TORCHVISION[name], abs=1e-9)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in CHEAP else [pytest.mark.slow]) for n in MODELS])
def test_multiply_accumulates_are_what_is_counted(name: str) -> None:
    entry = MODELS[name]
    assert counts()[name].multiply_accumulates == count.multiply_accumulates(entry.module, entry.image)
