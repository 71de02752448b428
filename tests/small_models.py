"""What the tests of the models share."""

from typing import Any

import jax
import jax.numpy as jnp

from convjax.models import (
    MLP,
    MODELS,
    VGG,
    AirBench,
    AlexNet,
    CifarResNet,
    ConvNeXt,
    DenseNet,
    EfficientNet,
    GoogLeNet,
    LeNet5,
    MobileNetV2,
    MobileNetV3,
    Model,
    ResNet,
    ResNetV2,
)

KEY = jax.random.key(0)


def image_size(name: str) -> tuple[int, int, int]:
    """A small image for the model: 64 pixels leave 2 x 2 to the last stage of an ImageNet network."""
    height, width, channels = MODELS[name].image
    return min(height, 64), min(width, 64), channels


def variables(model: Model, *image: int, train: bool = False) -> Any:
    """Shapes and dtypes of a model's variables, without computing anything."""
    batch = jax.ShapeDtypeStruct((4, *image), jnp.float32)
    return jax.eval_shape(lambda x: model.init(KEY, x, train=train), batch)


def parameter_count(model: Model, *image: int) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(variables(model, *image)["params"]))


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by path, as `params/stem/conv/kernel`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def small_image(family: str) -> tuple[int, int, int]:
    """An image that one of `one_of_each_family` takes."""
    return (64, 64, 3) if family == "alexnet" else (32, 32, 3)  # AlexNet's first four layers divide by 32


def one_of_each_family(**fields: Any) -> dict[str, Model]:
    """Small networks with every kind of layer, block, stem and shortcut that the families have."""
    return {
        "mlp": MLP(hidden=(8,), **fields),
        "lenet5": LeNet5(**fields),
        "cifar A": CifarResNet(depth=8, width=8, **fields),
        "cifar B": CifarResNet(depth=8, width=8, shortcut="B", **fields),
        "plain": CifarResNet(depth=8, width=8, shortcut="none", **fields),
        "basic": ResNet(stage_sizes=(1, 1), block="basic", width=8, allow_small_images=True, **fields),
        "bottleneck": ResNet(stage_sizes=(1, 1), width=8, stem="cifar", **fields),
        "densenet": DenseNet(block_sizes=(2, 2), growth=8, stem_features=8, allow_small_images=True, **fields),
        "densenet without B": DenseNet(
            block_sizes=(2, 2), growth=8, stem_features=8, stem="cifar", bottleneck=False, **fields
        ),
        "alexnet": AlexNet(hidden=(8, 8), **fields),
        "vgg": VGG(stage_sizes=(1, 2), width=8, hidden=(8,), pool_size=2, **fields),
        "googlenet": GoogLeNet(auxiliary_heads=True, **fields),
        "resnext": ResNet(stage_sizes=(1, 1), width=64, groups=8, group_width=1, stem="cifar", **fields),
        "se": ResNet(stage_sizes=(1, 1), block="basic", width=16, attention="se", stem="cifar", **fields),
        "v2 basic": ResNetV2(stage_sizes=(1, 1), width=8, stem_features=8, **fields),
        "v2 bottleneck": ResNetV2(stage_sizes=(2, 1), block="bottleneck", width=8, shortcut="B", **fields),
        "mobilenet_v2": MobileNetV2(width_factor=0.1, **fields),
        "mobilenet_v3": MobileNetV3(
            size="small", width_factor=0.1, early_activation=fields.get("activation", "relu"), **fields
        ),
        "efficientnet": EfficientNet(width_factor=0.1, **fields),
        "efficientnet_lite": EfficientNet(width_factor=0.1, variant="lite", padding="same", **fields),
        "convnext": ConvNeXt(stage_sizes=(1, 1), width=8, **fields),
        "airbench": AirBench(stage_widths=(8, 8), **fields),
    }
