"""Compares every named network with the one of PyTorch's libraries: same weights in, same logits out.

    python tests/parity/certify.py [NAME ...] [--gradients]

needs torch, torchvision and timm beside convjax, and prints a table: name, parameters, and the largest difference
of the logits relative to the largest logit, in evaluation mode at the network's usual image size. With --gradients,
instead, at 64 pixels at most in training mode without dropout: the difference of the loss relative to the loss, and
of all gradients in the L2 norm relative to theirs. PyTorch computes in float64, so that only convjax rounds; the
last column is how far PyTorch itself is off in float32, by the same measure.
"""

import argparse
import gc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timm
import torch
import torchvision

from convjax.interop.torch_names import from_torch, to_torch
from convjax.models import MODELS, CifarResNet, Model, ResNet, ResNetV2, create

BOUND = 1e-4
"""Largest relative difference of logits, unless PyTorch's own in float32 is more than half of it."""


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


def cifar_resnet(model: CifarResNet) -> torch.nn.Module:
    """Torchvision's basic blocks in the order of He et al. 2015, section 4.2."""
    block = torchvision.models.resnet.BasicBlock
    count = (model.depth - 2) // 6
    net = torch.nn.Sequential()
    net.add_module("conv1", torch.nn.Conv2d(3, 16, 3, padding=1, bias=False))
    net.add_module("bn1", torch.nn.BatchNorm2d(16))
    net.add_module("relu", torch.nn.ReLU())
    for stage, width in enumerate((16, 32, 64), start=1):
        first = block(16, 16) if stage == 1 else block(width // 2, width, 2, ShortcutA())
        net.add_module(f"layer{stage}", torch.nn.Sequential(first, *(block(width, width) for _ in range(count - 1))))
    net.add_module("pool", torch.nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", torch.nn.Flatten())
    net.add_module("fc", torch.nn.Linear(64, 10))
    return net


def cifar_resnet_v2(model: ResNetV2) -> torch.nn.Module:
    """Timm's network behind a stem for small images; its first block agrees with ours where it projects."""
    if model.shortcut == "A":
        raise NotImplementedError("timm has no shortcut A")
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


def reference(name: str) -> torch.nn.Module:
    """Returns PyTorch's network of a name.

    Raises:
        NotImplementedError: there is none.
    """
    model = MODELS[name].module
    if name == "airbench94":
        return airbench()
    if isinstance(model, CifarResNet) and model.shortcut == "A":
        return cifar_resnet(model)
    if isinstance(model, ResNetV2) and model.stem == "cifar":
        return cifar_resnet_v2(model)
    if isinstance(model, ResNet) and model.attention == "se":
        # As the paper, timm's seresnet50 to 152 and its legacy_seresnet18 and 34, whose pooling differs.
        squeeze = {"attn_layer": lambda channels, **_: timm.layers.SEModule(channels, rd_channels=channels // 16)}
        return timm.create_model(name.removeprefix("se"), block_args=squeeze)
    if name.startswith("resnetv2"):
        return timm.create_model(name)
    if name.startswith("efficientnet_lite"):
        return timm.create_model(f"tf_{name}")
    if name == "googlenet":
        return torchvision.models.googlenet(aux_logits=False, init_weights=False)
    if name in torchvision.models.list_models(torchvision.models):
        return torchvision.models.get_model(name)
    raise NotImplementedError("no reference")


def randomise(net: torch.nn.Module, images: torch.Tensor, fixed_scales: bool) -> None:
    """Gives a network seeded weights none of which is zero or one, and activations of order one.

    Running statistics are those of the images, disturbed, so that signals neither vanish nor explode.
    """
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for path, p in net.named_parameters():
            if p.ndim > 1 and not path.endswith("layer_scale"):
                p.normal_(0, (2 / p[0].numel()) ** 0.5)
            elif path.endswith("bias"):
                p.normal_(0, 0.1)
            else:
                p.uniform_(0.5, 1.5)
        momenta = [m.momentum for m in norms]
        for m in norms:
            if fixed_scales:
                m.weight.fill_(1)
            m.momentum = 1.0
        net.train()(images)
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
            # Deep in a random network pixels look alike: dividing by so small a variance would amplify each rounding.
            m.running_var += 0.1 * m.running_mean**2
            deviation = m.running_var.sqrt()
            m.running_mean += 0.1 * deviation * torch.randn_like(deviation)
            m.running_var *= torch.empty_like(deviation).uniform_(0.8, 1.25)


def arrays(net: torch.nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    return {key: value.detach().numpy() for key, value in net.state_dict().items()}


def logits_differ_by(name: str, net: torch.nn.Module) -> tuple[float, float]:
    """Returns the largest difference of the logits in evaluation mode, relative to the largest logit.

    Both are from PyTorch's logits in float64: those of convjax, and PyTorch's own in float32.
    """
    height, width, channels = MODELS[name].image
    images = torch.randn(2, channels, height, width)
    randomise(net, images, name == "airbench94")
    variables = from_torch(name, arrays(net))
    back = to_torch(name, variables)
    for key, value in arrays(net).items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[key], value)
    with torch.no_grad():
        single = net.eval()(images).numpy()
        theirs = net.double()(images.double()).numpy()
    apply = jax.jit(lambda v, x: MODELS[name].module.apply(v, x, train=False))
    ours = np.asarray(apply(variables, images.permute(0, 2, 3, 1).numpy()))
    largest = np.abs(theirs).max()
    assert np.abs(theirs[0] - theirs[1]).max() > 1e-2 * largest  # the images matter
    return float(np.abs(ours - theirs).max() / largest), float(np.abs(single - theirs).max() / largest)


def training_differs_by(name: str, net: torch.nn.Module) -> tuple[float, float, float]:
    """Returns relative differences of the loss and of all gradients in training mode, without dropout.

    The third is that of PyTorch's own gradients in float32.
    """
    size = min(MODELS[name].image[0], 64)
    images, labels = torch.randn(4, 3, size, size), torch.arange(4)
    randomise(net, images, name == "airbench94")
    none = {key: 0.0 for key in ("dropout", "drop_path") if hasattr(MODELS[name].module, key)}
    model: Model = create(name, **none)
    variables = from_torch(name, arrays(net))
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout | torchvision.ops.StochasticDepth):
            module.p = 0.0
    torch.nn.functional.cross_entropy(net.train()(images), labels).backward()
    single = gradients(net)
    net.double().zero_grad()
    loss = torch.nn.functional.cross_entropy(net(images.double()), labels)
    loss.backward()
    theirs = gradients(net)

    def ours(params: Any) -> jax.Array:
        given = {**variables, "params": params}
        logits: Any = model.apply(given, images.permute(0, 2, 3, 1).numpy(), train=True, mutable=["batch_stats"])[0]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(4), jnp.arange(4)])

    value, gradient = jax.jit(jax.value_and_grad(ours))(variables["params"])
    there = to_torch(name, {**variables, "params": gradient})
    length = sum(float((g**2).sum()) for g in theirs.values())
    ours_apart, single_apart = (
        (sum(float(((found[key] - g) ** 2).sum()) for key, g in theirs.items()) / length) ** 0.5
        for found in (there, single)
    )
    return abs(float(value) / loss.item() - 1), ours_apart, single_apart


def gradients(net: torch.nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    return {key: p.grad.numpy().copy() for key, p in net.named_parameters() if p.grad is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*MODELS, []], metavar="NAME")
    parser.add_argument("--gradients", action="store_true")
    options = parser.parse_args()
    failed = []
    for name in options.names or MODELS:
        torch.manual_seed(0)
        try:
            net = reference(name)
        except NotImplementedError as reason:
            print(f"{name:20} {reason}", flush=True)
            continue
        count = sum(p.numel() for p in net.parameters())
        if options.gradients:
            loss, gradient, rounding = training_differs_by(name, net)
            print(f"{name:20} {count:12,} {loss:9.1e} {gradient:9.1e} {rounding:9.1e}", flush=True)
        else:
            difference, rounding = logits_differ_by(name, net)
            print(f"{name:20} {count:12,} {difference:9.1e} {rounding:9.1e}", flush=True)
            failed += [name] * (not difference <= max(BOUND, 2 * rounding))
        jax.clear_caches()
        gc.collect()
    if failed:
        raise SystemExit(f"differ by more than {BOUND} and twice PyTorch's own rounding: {', '.join(failed)}")


if __name__ == "__main__":
    main()
