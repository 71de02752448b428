"""The named models: one explicit table from names to modules with their fields filled in."""

import dataclasses
from typing import Any

from convjax.errors import UsageError, nearest
from convjax.models.base import Model
from convjax.models.densenet import DenseNet
from convjax.models.lenet import LeNet5
from convjax.models.mlp import MLP
from convjax.models.resnet import CifarResNet, ResNet

__all__ = ["MLP", "MODELS", "CifarResNet", "DenseNet", "Entry", "LeNet5", "Model", "ResNet", "create"]


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


_CIFAR = (32, 32, 3)
_IMAGENET = (224, 224, 3)
_HE = "He et al. 2015, arXiv:1512.03385"
_HUANG = "Huang et al. 2016, arXiv:1608.06993"


def _resnet(block: Any, *stage_sizes: int) -> Entry:
    return Entry(ResNet(num_classes=1000, block=block, stage_sizes=stage_sizes), _IMAGENET, _HE)


def _densenet(growth: int, stem_features: int, *block_sizes: int) -> Entry:
    module = DenseNet(num_classes=1000, growth=growth, stem_features=stem_features, block_sizes=block_sizes)
    return Entry(module, _IMAGENET, _HUANG)


MODELS: dict[str, Entry] = {
    "mlp": Entry(MLP(), (28, 28, 1), "Rumelhart et al. 1986, Nature 323"),
    "lenet5": Entry(LeNet5(), (32, 32, 1), "LeCun et al. 1998, Proc. IEEE 86"),
    **{f"resnet{n}": Entry(CifarResNet(depth=n), _CIFAR, _HE) for n in (20, 32, 44, 56, 110)},
    **{f"plain{n}": Entry(CifarResNet(depth=n, shortcut="none"), _CIFAR, _HE) for n in (20, 32, 44, 56, 110)},
    "resnet18": _resnet("basic", 2, 2, 2, 2),
    "resnet34": _resnet("basic", 3, 4, 6, 3),
    "resnet50": _resnet("bottleneck", 3, 4, 6, 3),
    "resnet101": _resnet("bottleneck", 3, 4, 23, 3),
    "resnet152": _resnet("bottleneck", 3, 8, 36, 3),
    "densenet121": _densenet(32, 64, 6, 12, 24, 16),
    "densenet161": _densenet(48, 96, 6, 12, 36, 24),
    "densenet169": _densenet(32, 64, 6, 12, 32, 32),
    "densenet201": _densenet(32, 64, 6, 12, 48, 32),
    "densenet_bc_100_12": Entry(
        DenseNet(growth=12, stem_features=24, stem="cifar", block_sizes=(16, 16, 16)), _CIFAR, _HUANG
    ),
}


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
