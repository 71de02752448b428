"""What PyTorch's libraries call the modules of each family.

torchvision's names where it has the network, else timm's (SE-ResNet, ResNet-v2, EfficientNet-Lite), else those of
Keller Jordan's program (airbench94). Networks for CIFAR have the names of their larger relatives.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias

from convjax.errors import UsageError
from convjax.interop import torch_mobile
from convjax.interop.rules import UNIT, Place, Rules
from convjax.models import (
    VGG,
    AirBench,
    AlexNet,
    CifarResNet,
    ConvNeXt,
    DenseNet,
    EfficientNet,
    GoogLeNet,
    MobileNetV2,
    MobileNetV3,
    Model,
    ResNet,
    ResNetV2,
)

Library: TypeAlias = Literal["torchvision", "timm", "lukemelas", "airbench"]
"""Whose names: torchvision, timm, Luke Melas-Kyriazi's EfficientNet-PyTorch, or Keller Jordan's program."""


def family(model: Model, modules: Iterable[str], library: Library | None = None) -> Rules:
    """Returns the rules for a model that has these modules.

    Args:
        model: the model.
        modules: paths of its modules.
        library: whose names; None for those that the model follows, the first of those there are.

    Raises:
        UsageError: that library has no such model, or none has.
    """
    for kind, rules in _FAMILIES.items():
        if isinstance(model, kind):
            known = rules(model)
            chosen = library or next(iter(known))
            if chosen not in known:
                raise UsageError(
                    f"{library} has no names for this {kind.__name__}; known are those of {', '.join(known)}"
                )
            return known[chosen](model, frozenset(modules))
    raise UsageError(f"there are no PyTorch names for models of type {type(model).__name__}")


def differing_fields(model: Model, library: Library | None) -> dict[str, Any]:
    """Returns the fields of a library's network of the same name that are not our model's."""
    if isinstance(model, EfficientNet) and model.variant == "standard":
        # timm has TensorFlow's epsilons and padding as tf_efficientnet_b0 to b7.
        if library == "timm":
            return {"batch_epsilon": 1e-5}
        if library == "lukemelas":
            return {"batch_epsilon": 1e-3, "padding": "same"}
    return {"batch_epsilon": 1e-5} if isinstance(model, MobileNetV3) and library == "timm" else {}


def _alexnet(model: AlexNet, modules: frozenset[str]) -> Rules:
    at = (0, 3, 6, 8, 10)
    return {
        r"(?:conv|norm)(\d)": lambda i: f"features.{at[i - 1]}",
        "dense1": Place("classifier.1", "flattened", model.pool_size**2),
        "dense2": "classifier.4",
        "head": "classifier.6",
    }


def _vgg(model: VGG, modules: frozenset[str]) -> Rules:
    # A convolution, perhaps a norm, and an activation each; a pooling at the end of each stage.
    normed = model.norm != "none"

    def at(stage: int, i: int) -> int:
        return (3 if normed else 2) * (sum(model.stage_sizes[: stage - 1]) + i - 1) + stage - 1

    return {
        r"stage(\d+)_conv(\d+)": lambda stage, i: f"features.{at(stage, i)}",
        r"stage(\d+)_norm(\d+)": lambda stage, i: f"features.{at(stage, i) + normed}",
        "dense1": Place("classifier.0", "flattened", model.pool_size**2),
        "dense2": "classifier.3",
        "head": "classifier.6",
    }


def _timm_vgg(model: VGG, modules: frozenset[str]) -> Rules:
    return {
        **_vgg(model, modules),
        "dense1": Place("pre_logits.fc1", "window", model.pool_size**2),
        "dense2": Place("pre_logits.fc2", "pixel"),
        "head": "head.fc",
    }


def _googlenet(model: GoogLeNet, modules: frozenset[str]) -> Rules:
    kinds = {"conv": "conv", "norm": "bn"}
    return {
        r"stem(\d)/(\w+)": lambda i, kind: f"conv{i}.{kinds[kind]}",
        r"(inception\w+)/branch1/(\w+)": lambda name, kind: f"{name}.branch1.{kinds[kind]}",
        r"(inception\w+)/branch(\d)_reduce/(\w+)": lambda name, i, kind: f"{name}.branch{i}.0.{kinds[kind]}",
        r"(inception\w+)/branch(\d)/(\w+)": lambda name, i, kind: f"{name}.branch{i}.1.{kinds[kind]}",
        r"auxiliary(\d)/reduce/(\w+)": lambda i, kind: f"aux{i}.conv.{kinds[kind]}",
        r"auxiliary(\d)/dense": lambda i: Place(f"aux{i}.fc1", "flattened", 16),
        r"auxiliary(\d)/head": lambda i: f"aux{i}.fc2",
        "head/dense": "fc",
    }


def _resnet(model: ResNet | CifarResNet, modules: frozenset[str]) -> Rules:
    last = 3 if isinstance(model, ResNet) and model.block == "bottleneck" else 2
    block = r"stage(\d+)_block(\d+)"
    return {
        "stem/conv": "conv1",
        "stem/norm": "bn1",
        f"{block}/conv(\\d)/norm": lambda s, b, i: f"layer{s}.{b - 1}.bn{i}",
        f"{block}/conv(\\d)(?:/conv)?": lambda s, b, i: f"layer{s}.{b - 1}.conv{i}",
        f"{block}/norm_last": lambda s, b: f"layer{s}.{b - 1}.bn{last}",
        f"{block}/shortcut/(\\w+)": lambda s, b, kind: f"layer{s}.{b - 1}.downsample.{UNIT[kind]}",
        f"{block}/squeeze_excite/squeeze": lambda s, b: f"layer{s}.{b - 1}.se.fc1",
        f"{block}/squeeze_excite/excite": lambda s, b: f"layer{s}.{b - 1}.se.fc2",
        "head/dense": "fc",
    }


def _resnet_v2(model: ResNetV2, modules: frozenset[str]) -> Rules:
    return {
        "stem": "stem.conv",
        r"stage(\d+)_block(\d+)/shortcut": lambda s, b: f"stages.{s - 1}.blocks.{b - 1}.downsample.conv",
        r"stage(\d+)_block(\d+)/(\w+)": lambda s, b, name: f"stages.{s - 1}.blocks.{b - 1}.{name}",
        "norm": "norm",
        "head/dense": Place("head.fc", "pixel"),
    }


def _densenet(model: DenseNet, modules: frozenset[str]) -> Rules:
    return {
        "stem(?:/conv)?": "features.conv0",
        "stem/norm": "features.norm0",
        r"block(\d+)_layer(\d+)/(\w+)": lambda b, i, name: f"features.denseblock{b}.denselayer{i}.{name}",
        r"transition(\d+)/(\w+)": lambda i, name: f"features.transition{i}.{name}",
        "norm": "features.norm5",  # whatever the number of blocks
        "head/dense": "classifier",
    }


def _convnext(model: ConvNeXt, modules: frozenset[str]) -> Rules:
    at = {"depthwise": 0, "norm": 2, "expand": 3, "project": 5}

    def inside(stage: int, i: int, part: str) -> Place:
        block = f"features.{2 * stage - 1}.{i - 1}"
        if part == "layer_scale":
            return Place(block, "column", leaf="layer_scale")
        return Place(f"{block}.block.{at[part]}", "linear" if part in ("expand", "project") else "usual")

    return {
        "stem": "features.0.0",
        "stem_norm": "features.0.1",
        r"stage(\d+)_norm": lambda stage: f"features.{2 * stage - 2}.0",
        r"stage(\d+)_halve": lambda stage: f"features.{2 * stage - 2}.1",
        r"stage(\d+)_block(\d+)/(\w+)": inside,
        "norm": "classifier.0",
        "head/dense": "classifier.2",
    }


def _timm_convnext(model: ConvNeXt, modules: frozenset[str]) -> Rules:
    names = {"depthwise": "conv_dw", "norm": "norm", "expand": "mlp.fc1", "project": "mlp.fc2"}

    def inside(stage: int, i: int, part: str) -> Place:
        block = f"stages.{stage - 1}.blocks.{i - 1}"
        if part == "layer_scale":
            return Place(block, leaf="gamma")
        return Place(f"{block}.{names[part]}", "linear" if part in ("expand", "project") else "usual")

    return {
        "stem": "stem.0",
        "stem_norm": "stem.1",
        r"stage(\d+)_norm": lambda stage: f"stages.{stage - 1}.downsample.0",
        r"stage(\d+)_halve": lambda stage: f"stages.{stage - 1}.downsample.1",
        r"stage(\d+)_block(\d+)/(\w+)": inside,
        "norm": "head.norm",
        "head/dense": "head.fc",
    }


def _airbench(model: AirBench, modules: frozenset[str]) -> Rules:
    return {
        "whiten": "0",
        r"group(\d+)/(\w+)": lambda i, name: f"{i + 1}.{name}",
        "head": str(len(model.stage_widths) + 4),
    }


Named: TypeAlias = dict[Library, Callable[[Any, frozenset[str]], Rules]]
"""By library, the function that gives the rules for a model and its modules."""


def _resnets(model: ResNet | CifarResNet) -> Named:
    return {"timm": _resnet} if model.attention == "se" else {"torchvision": _resnet, "timm": _resnet}


def _efficientnets(model: EfficientNet) -> Named:
    others: Named = {"timm": torch_mobile.timm_efficientnet, "lukemelas": torch_mobile.lukemelas_efficientnet}
    return others if model.variant == "lite" else {"torchvision": torch_mobile.efficientnet, **others}


_FAMILIES: dict[type[Model], Callable[[Any], Named]] = {
    AirBench: lambda _: {"airbench": _airbench},
    AlexNet: lambda _: {"torchvision": _alexnet},
    CifarResNet: _resnets,
    ConvNeXt: lambda _: {"torchvision": _convnext, "timm": _timm_convnext},
    DenseNet: lambda _: {"torchvision": _densenet, "timm": _densenet},
    EfficientNet: _efficientnets,
    GoogLeNet: lambda _: {"torchvision": _googlenet},
    MobileNetV2: lambda _: {"torchvision": torch_mobile.mobilenet_v2, "timm": torch_mobile.timm_mobilenet_v2},
    MobileNetV3: lambda _: {"torchvision": torch_mobile.mobilenet_v3, "timm": torch_mobile.timm_mobilenet_v3},
    ResNet: _resnets,
    ResNetV2: lambda _: {"timm": _resnet_v2},
    VGG: lambda _: {"torchvision": _vgg, "timm": _timm_vgg},
}
