"""The networks in PyTorch: torchvision's, and those of He et al. and LeCun et al. that it has not."""

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock


class PadShortcut(nn.Module):  # type: ignore[misc]
    """Every other pixel, and zeros in the new channels: option A of He et al. 2015."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, x.shape[1]))


def lenet(classes: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, classes)),
    )


def resnet20(classes: int) -> nn.Module:
    layers = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    for stage, width in enumerate((16, 32, 64)):
        layers += [BasicBlock(width // 2, width, 2, PadShortcut()) if stage else BasicBlock(width, width)]
        layers += [BasicBlock(width, width) for _ in range(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def resnet18_cifar(classes: int) -> nn.Module:
    net = torchvision.models.resnet18(num_classes=classes)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return net


def network(name: str, classes: int) -> nn.Module:
    """Returns the network that convjax calls so, in training mode, its images channels last."""
    ours = {"lenet5": lenet, "resnet20": resnet20, "resnet18_cifar": resnet18_cifar}
    net = ours[name](classes) if name in ours else torchvision.models.get_model(name, num_classes=classes)
    return net.to(memory_format=torch.channels_last)
