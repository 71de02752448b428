"""The named models: one explicit table from names to modules with their fields filled in."""

import csv
import dataclasses
import importlib.resources
from typing import Any, NamedTuple

from convjax.errors import UsageError, nearest
from convjax.models.airbench import AirBench
from convjax.models.alexnet import AlexNet
from convjax.models.base import BlockModel, Model
from convjax.models.convnet import ConvNet
from convjax.models.convnext import ConvNeXt
from convjax.models.densenet import DenseNet
from convjax.models.efficientnet import EfficientNet
from convjax.models.googlenet import GoogLeNet
from convjax.models.lenet import LeNet5
from convjax.models.mlp import MLP
from convjax.models.mobilenet_v2 import MobileNetV2
from convjax.models.mobilenet_v3 import MobileNetV3
from convjax.models.resnet import CifarResNet, ResNet
from convjax.models.resnet_v2 import ResNetV2
from convjax.models.vgg import VGG

__all__ = [
    "MLP",
    "MODELS",
    "VGG",
    "AirBench",
    "AlexNet",
    "BlockModel",
    "CifarResNet",
    "ConvNeXt",
    "ConvNet",
    "Counts",
    "DenseNet",
    "EfficientNet",
    "Entry",
    "GoogLeNet",
    "LeNet5",
    "MobileNetV2",
    "MobileNetV3",
    "Model",
    "ResNet",
    "ResNetV2",
    "counts",
    "create",
]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A named model.

    Attributes:
        module: the model as published.
        image: the (height, width, channels) it is usually used with.
        paper: where it comes from.
    """

    module: Model
    image: tuple[int, int, int]
    paper: str


class Counts(NamedTuple):
    """What `convjax.inspect.count` finds in a named model: its parameters, and multiply-accumulates for one image."""

    parameters: int
    multiply_accumulates: int


_CIFAR = (32, 32, 3)
_IMAGENET = (224, 224, 3)
_HE = "He et al. 2015, arXiv:1512.03385"
_HE_V2 = "He et al. 2016, arXiv:1603.05027"
_HOWARD = "Howard et al. 2019, arXiv:1905.02244"
_HU = "Hu et al. 2017, arXiv:1709.01507"
_HUANG = "Huang et al. 2016, arXiv:1608.06993"
_LIU = "Liu et al. 2022, arXiv:2201.03545"
_SIMONYAN = "Simonyan and Zisserman 2014, arXiv:1409.1556"
_TAN = "Tan and Le 2019, arXiv:1905.11946"
_XIE = "Xie et al. 2016, arXiv:1611.05431"
_ZAGORUYKO = "Zagoruyko and Komodakis 2016, arXiv:1605.07146"


def _resnet(block: Any, *stage_sizes: int, paper: str = _HE, **fields: Any) -> Entry:
    return Entry(ResNet(num_classes=1000, block=block, stage_sizes=stage_sizes, **fields), _IMAGENET, paper)


def _resnet_v2(*stage_sizes: int) -> Entry:
    module = ResNetV2(
        num_classes=1000,
        stage_sizes=stage_sizes,
        block="bottleneck",
        width=64,
        stem_features=64,
        stem="imagenet",
        shortcut="B",
    )
    return Entry(module, _IMAGENET, _HE_V2)


def _bottleneck_v2(depth: int) -> Entry:
    """A CIFAR network of 9n + 2 layers."""
    module = ResNetV2(stage_sizes=((depth - 2) // 9,) * 3, block="bottleneck", shortcut="B")
    return Entry(module, _CIFAR, _HE_V2)


def _wide(depth: int, factor: int) -> Entry:
    """A CIFAR network of 6n + 4 layers: three of them project."""
    module = ResNetV2(stage_sizes=((depth - 4) // 6,) * 3, width=16 * factor, shortcut="B")
    return Entry(module, _CIFAR, _ZAGORUYKO)


def _densenet(growth: int, stem_features: int, *block_sizes: int) -> Entry:
    module = DenseNet(num_classes=1000, growth=growth, stem_features=stem_features, block_sizes=block_sizes)
    return Entry(module, _IMAGENET, _HUANG)


def _vgg(norm: Any, *stage_sizes: int) -> Entry:
    return Entry(VGG(num_classes=1000, norm=norm, stage_sizes=stage_sizes), _IMAGENET, _SIMONYAN)


def _efficientnet(width: float, depth: float, size: int, dropout: float, **fields: Any) -> Entry:
    module = EfficientNet(num_classes=1000, width_factor=width, depth_factor=depth, dropout=dropout, **fields)
    return Entry(module, (size, size, 3), _TAN)


def _lite(width: float, depth: float, size: int, dropout: float) -> Entry:
    return _efficientnet(width, depth, size, dropout, variant="lite", activation="relu6", padding="same")


def _convnext(width: int, drop_path: float, *stage_sizes: int) -> Entry:
    module = ConvNeXt(num_classes=1000, width=width, drop_path=drop_path, stage_sizes=stage_sizes)
    return Entry(module, _IMAGENET, _LIU)


MODELS: dict[str, Entry] = {
    "mlp": Entry(MLP(), (28, 28, 1), "Rumelhart et al. 1986, Nature 323"),
    "lenet5": Entry(LeNet5(), (32, 32, 1), "LeCun et al. 1998, Proc. IEEE 86"),
    "alexnet": Entry(AlexNet(num_classes=1000), _IMAGENET, "Krizhevsky 2014, arXiv:1404.5997"),
    "vgg11": _vgg("none", 1, 1, 2, 2, 2),
    "vgg13": _vgg("none", 2, 2, 2, 2, 2),
    "vgg16": _vgg("none", 2, 2, 3, 3, 3),
    "vgg19": _vgg("none", 2, 2, 4, 4, 4),
    "vgg11_bn": _vgg("batch", 1, 1, 2, 2, 2),
    "vgg13_bn": _vgg("batch", 2, 2, 2, 2, 2),
    "vgg16_bn": _vgg("batch", 2, 2, 3, 3, 3),
    "vgg19_bn": _vgg("batch", 2, 2, 4, 4, 4),
    "googlenet": Entry(GoogLeNet(num_classes=1000), _IMAGENET, "Szegedy et al. 2014, arXiv:1409.4842"),
    **{f"resnet{n}": Entry(CifarResNet(depth=n), _CIFAR, _HE) for n in (20, 32, 44, 56, 110)},
    **{f"plain{n}": Entry(CifarResNet(depth=n, shortcut="none"), _CIFAR, _HE) for n in (20, 32, 44, 56, 110)},
    "resnet18": _resnet("basic", 2, 2, 2, 2),
    "resnet34": _resnet("basic", 3, 4, 6, 3),
    "resnet50": _resnet("bottleneck", 3, 4, 6, 3),
    "resnet101": _resnet("bottleneck", 3, 4, 23, 3),
    "resnet152": _resnet("bottleneck", 3, 8, 36, 3),
    "resnext50_32x4d": _resnet("bottleneck", 3, 4, 6, 3, paper=_XIE, groups=32, group_width=4),
    "resnext101_32x8d": _resnet("bottleneck", 3, 4, 23, 3, paper=_XIE, groups=32, group_width=8),
    "wide_resnet50_2": _resnet("bottleneck", 3, 4, 6, 3, paper=_ZAGORUYKO, group_width=128),
    "wide_resnet101_2": _resnet("bottleneck", 3, 4, 23, 3, paper=_ZAGORUYKO, group_width=128),
    "wide_resnet16_8": _wide(16, 8),
    "wide_resnet28_10": _wide(28, 10),
    "seresnet18": _resnet("basic", 2, 2, 2, 2, paper=_HU, attention="se"),
    "seresnet34": _resnet("basic", 3, 4, 6, 3, paper=_HU, attention="se"),
    "seresnet50": _resnet("bottleneck", 3, 4, 6, 3, paper=_HU, attention="se"),
    "seresnet101": _resnet("bottleneck", 3, 4, 23, 3, paper=_HU, attention="se"),
    "seresnet152": _resnet("bottleneck", 3, 8, 36, 3, paper=_HU, attention="se"),
    **{
        f"resnetv2_{n}": Entry(ResNetV2(stage_sizes=((n - 2) // 6,) * 3), _CIFAR, _HE_V2) for n in (20, 32, 44, 56, 110)
    },
    "resnetv2_164": _bottleneck_v2(164),
    "resnetv2_1001": _bottleneck_v2(1001),
    "resnetv2_50": _resnet_v2(3, 4, 6, 3),
    "resnetv2_101": _resnet_v2(3, 4, 23, 3),
    "resnetv2_152": _resnet_v2(3, 8, 36, 3),
    "densenet121": _densenet(32, 64, 6, 12, 24, 16),
    "densenet161": _densenet(48, 96, 6, 12, 36, 24),
    "densenet169": _densenet(32, 64, 6, 12, 32, 32),
    "densenet201": _densenet(32, 64, 6, 12, 48, 32),
    "densenet_bc_100_12": Entry(
        DenseNet(growth=12, stem_features=24, stem="cifar", block_sizes=(16, 16, 16)), _CIFAR, _HUANG
    ),
    "mobilenet_v2": Entry(MobileNetV2(num_classes=1000), _IMAGENET, "Sandler et al. 2018, arXiv:1801.04381"),
    "mobilenet_v3_large": Entry(MobileNetV3(num_classes=1000), _IMAGENET, _HOWARD),
    "mobilenet_v3_small": Entry(MobileNetV3(num_classes=1000, size="small"), _IMAGENET, _HOWARD),
    # The epsilons are those of torchvision's weights.
    "efficientnet_b0": _efficientnet(1.0, 1.0, 224, 0.2, batch_epsilon=1e-5),
    "efficientnet_b1": _efficientnet(1.0, 1.1, 240, 0.2, batch_epsilon=1e-5),
    "efficientnet_b2": _efficientnet(1.1, 1.2, 260, 0.3, batch_epsilon=1e-5),
    "efficientnet_b3": _efficientnet(1.2, 1.4, 300, 0.3, batch_epsilon=1e-5),
    "efficientnet_b4": _efficientnet(1.4, 1.8, 380, 0.4, batch_epsilon=1e-5),
    "efficientnet_b5": _efficientnet(1.6, 2.2, 456, 0.4),
    "efficientnet_b6": _efficientnet(1.8, 2.6, 528, 0.5),
    "efficientnet_b7": _efficientnet(2.0, 3.1, 600, 0.5),
    "efficientnet_lite0": _lite(1.0, 1.0, 224, 0.2),
    "efficientnet_lite1": _lite(1.0, 1.1, 240, 0.2),
    "efficientnet_lite2": _lite(1.1, 1.2, 260, 0.3),
    "efficientnet_lite3": _lite(1.2, 1.4, 280, 0.3),
    "efficientnet_lite4": _lite(1.4, 1.8, 300, 0.3),
    "convnext_tiny": _convnext(96, 0.1, 3, 3, 9, 3),
    "convnext_small": _convnext(96, 0.4, 3, 3, 27, 3),
    "convnext_base": _convnext(128, 0.5, 3, 3, 27, 3),
    "convnext_large": _convnext(192, 0.5, 3, 3, 27, 3),
    "airbench94": Entry(AirBench(), _CIFAR, "Jordan 2024, arXiv:2404.00498"),
}


def counts() -> dict[str, Counts]:
    """Returns the counts of all named models, as they are written down: to count takes a second or more a model."""
    with (importlib.resources.files("convjax.models") / "counts.csv").open() as file:
        return {name: Counts(*map(int, numbers)) for name, *numbers in csv.reader(file)}


def create(name: str, **fields: Any) -> Model:
    """Returns the model called `name`, with some of its fields changed.

    Raises:
        UsageError: there is no such model, or it has no such field.
    """
    if name not in MODELS:
        raise UsageError(f"there is no model {name!r}: {nearest(name, list(MODELS))}")
    module = MODELS[name].module
    known = [f.name for f in dataclasses.fields(module) if f.name not in ("parent", "name")]
    for field in fields:
        if field not in known:
            raise UsageError(f"model {name!r} has no field {field!r}: {nearest(field, known)}")
    return module.clone(**fields)
