"""PyTorch's networks by our names: those of torchvision, else timm's, else put together from their blocks."""

import timm
import torch
import torchvision

from convjax.models import (
    MODELS,
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
from convjax.models.mobilenet_v2 import STAGES

TORCHVISION, TIMM = f"torchvision {torchvision.__version__.split('+')[0]}", f"timm {timm.__version__}"


class Scaled(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


class ShortcutA(torch.nn.Module):  # type: ignore[misc]
    """Every other pixel, and zeros in the new channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, x.shape[1]))


class NoShortcut(torch.nn.Module):  # type: ignore[misc]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(())


def cifar_resnet(model: CifarResNet) -> torch.nn.Module:
    """Torchvision's basic blocks in the order of He et al. 2015, section 4.2."""
    block = torchvision.models.resnet.BasicBlock
    plain = NoShortcut() if model.shortcut == "none" else None
    count = (model.depth - 2) // 6
    net = torch.nn.Sequential()
    net.add_module("conv1", torch.nn.Conv2d(3, 16, 3, padding=1, bias=False))
    net.add_module("bn1", torch.nn.BatchNorm2d(16))
    net.add_module("relu", torch.nn.ReLU())
    for stage, width in enumerate((16, 32, 64), start=1):
        first = block(16, 16, 1, plain) if stage == 1 else block(width // 2, width, 2, plain or ShortcutA())
        others = (block(width, width, 1, plain) for _ in range(count - 1))
        net.add_module(f"layer{stage}", torch.nn.Sequential(first, *others))
    net.add_module("pool", torch.nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", torch.nn.Flatten())
    net.add_module("fc", torch.nn.Linear(64, 10))
    return net


def cifar_resnet_v2(model: ResNetV2) -> torch.nn.Module:
    """Timm's network behind a stem for small images."""
    expansion = 4 if model.block == "bottleneck" else 1
    net = timm.models.resnetv2.ResNetV2(
        layers=list(model.stage_sizes),
        channels=tuple(model.width * expansion * 2**i for i in range(3)),
        num_classes=10,
        stem_chs=16,
        basic=expansion == 1,
        bottle_ratio=1 / expansion,
        norm_layer=timm.layers.BatchNormAct2d,
        conv_layer=timm.layers.create_conv2d,
    )
    net.stem = torch.nn.Sequential()
    net.stem.add_module("conv", torch.nn.Conv2d(3, 16, 3, padding=1, bias=False))
    if model.shortcut == "A":  # after the first activation in the first block, too
        for stage, shortcut in zip(net.stages, (torch.nn.Identity(), ShortcutA(), ShortcutA()), strict=True):
            stage.blocks[0].downsample = shortcut
    return net


def cifar_densenet(model: DenseNet) -> torch.nn.Module:
    """Torchvision's network behind a stem for small images."""
    net = torchvision.models.DenseNet(model.growth, model.block_sizes, model.stem_features, num_classes=10)
    net.features.conv0 = torch.nn.Conv2d(3, model.stem_features, 3, padding=1, bias=False)
    del net.features.norm0, net.features.relu0, net.features.pool0
    return net


def airbench() -> torch.nn.Module:
    """The modules of Keller Jordan's program."""

    class Group(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, before: int, after: int) -> None:
            super().__init__()
            self.conv1 = torch.nn.Conv2d(before, after, 3, padding="same", bias=False)
            self.norm1 = torch.nn.BatchNorm2d(after, eps=1e-12, momentum=0.4)
            self.conv2 = torch.nn.Conv2d(after, after, 3, padding="same", bias=False)
            self.norm2 = torch.nn.BatchNorm2d(after, eps=1e-12, momentum=0.4)
            self.norm1.weight.requires_grad = self.norm2.weight.requires_grad = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            gelu = torch.nn.functional.gelu
            x = gelu(self.norm1(torch.nn.functional.max_pool2d(self.conv1(x), 2)))
            return gelu(self.norm2(self.conv2(x)))

    layers = [torch.nn.Conv2d(3, 24, 2), torch.nn.GELU(), Group(24, 64), Group(64, 256), Group(256, 256)]
    layers[0].weight.requires_grad = False
    head = [torch.nn.MaxPool2d(3), torch.nn.Flatten(), torch.nn.Linear(256, 10, bias=False), Scaled(1 / 9)]
    return torch.nn.Sequential(*layers, *head)


def reference(name: str) -> tuple[torch.nn.Module, str]:
    """Returns PyTorch's network of a name, and where it comes from.

    Raises:
        NotImplementedError: there is none.
    """
    model = MODELS[name].module
    if name == "airbench94":
        return airbench(), "Jordan's modules"
    if isinstance(model, CifarResNet):
        return cifar_resnet(model), f"blocks of {TORCHVISION}"
    if isinstance(model, ResNetV2):
        if model.stem == "cifar":
            return cifar_resnet_v2(model), f"blocks of {TIMM}"
        return timm.create_model(name), TIMM
    if isinstance(model, DenseNet) and model.stem == "cifar":
        return cifar_densenet(model), f"blocks of {TORCHVISION}"
    if isinstance(model, ResNet) and model.attention == "se":
        # As the paper, timm's seresnet50 to 152 and its legacy_seresnet18 and 34, whose pooling differs.
        squeeze = {"attn_layer": lambda channels, **_: timm.layers.SEModule(channels, rd_channels=channels // 16)}
        return timm.create_model(name.removeprefix("se"), block_args=squeeze), TIMM
    if name.startswith("efficientnet_lite"):
        return timm.create_model(f"tf_{name}"), TIMM
    if name == "googlenet":
        return torchvision.models.googlenet(aux_logits=False, init_weights=False), TORCHVISION
    if name in torchvision.models.list_models(torchvision.models):
        return torchvision.models.get_model(name), TORCHVISION
    raise NotImplementedError(f"there is no reference for {name}")


def stages(model: Model) -> dict[str, str]:
    """Returns what the library calls the modules whose outputs are our features of these names."""
    if isinstance(model, AirBench):
        return {f"group{i}": f"{i + 1}" for i in (1, 2, 3)}
    if isinstance(model, AlexNet):
        return {f"norm{i}": f"features.{at}" for i, at in enumerate((0, 3, 6, 8, 10), start=1)}
    if isinstance(model, VGG):
        each, found, at = 2 if model.norm == "none" else 3, {}, 0
        for stage, size in enumerate(model.stage_sizes, start=1):
            found[f"stage{stage}_norm{size}"] = f"features.{at + each * size - 2}"  # where an activation follows
            at += each * size + 1
        return found
    if isinstance(model, GoogLeNet):
        return {
            name: name for name in (f"inception{i}" for i in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"))
        }
    if isinstance(model, CifarResNet | ResNet):
        return {f"stage{i}": f"layer{i}" for i in range(1, 4 if isinstance(model, CifarResNet) else 5)}
    if isinstance(model, ResNetV2):
        return {f"stage{i}": f"stages.{i - 1}" for i in range(1, len(model.stage_sizes) + 1)}
    if isinstance(model, DenseNet):
        blocks = {f"block{i}": f"features.denseblock{i}" for i in range(1, len(model.block_sizes) + 1)}
        return blocks | {f"transition{i}": f"features.transition{i}" for i in range(1, len(blocks))}
    if isinstance(model, MobileNetV2):
        last = [sum(blocks for _, _, blocks, _ in STAGES[:i]) for i in range(1, len(STAGES) + 1)]
        return {f"stage{i}": f"features.{at}" for i, at in enumerate(last, start=1)} | {"last": "features.18"}
    if isinstance(model, MobileNetV3):
        count = 15 if model.size == "large" else 11
        return {f"block{i}": f"features.{i}" for i in range(1, count + 1)} | {"last": f"features.{count + 1}"}
    if isinstance(model, EfficientNet):
        if model.variant == "lite":
            return {f"stage{i}": f"blocks.{i - 1}" for i in range(1, 8)}
        return {f"stage{i}": f"features.{i}" for i in range(1, 8)} | {"last": "features.8"}
    if isinstance(model, ConvNeXt):
        return {f"stage{i}": f"features.{2 * i - 1}" for i in range(1, 5)}
    return {}
