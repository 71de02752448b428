"""Residual networks: He, Zhang, Ren and Sun 2015, "Deep residual learning for image recognition", arXiv:1512.03385.

ResNeXt (arXiv:1611.05431), Wide ResNet on ImageNet (arXiv:1605.07146) and SE-ResNet (arXiv:1709.01507) are the
same network with other bottlenecks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax import ops
from convjax.layers import ClassifierHead, ConvNormAct, DropBlock, DropPath, Layers, SqueezeExcite
from convjax.models.base import BlockModel

Shortcut = Literal["A", "B", "none"]
Attention = Literal["none", "se"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them (the paper's figure 5, left).

    `[N, H, W, C]` to `[N, ceil(H / stride), ceil(W / stride), features]`.
    """

    layers: Layers
    features: int
    stride: int
    shortcut: Shortcut
    zero_init: bool
    drop_path: float
    train: bool
    attention: Attention = "none"
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = ConvNormAct(self.layers, self.features, 3, self.stride, name="conv1")(x)
        y = self.layers.conv(self.features, 3, name="conv2")(y)
        y = _last_norm(self.layers, self.zero_init)(y)
        if self.attention == "se":
            y = SqueezeExcite(self.layers, name="squeeze_excite")(y)
        y = DropPath(self.drop_path, self.train, name="drop_path")(y)
        return _join(self.layers, x, y, self.stride, self.shortcut)


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut around them (figure 5, right), four times wider at its ends.

    The stride sits in the 3x3 convolution ("v1.5", as in torchvision), not in the first 1x1. Between its ends the
    block has `groups` groups of `group_width` channels for every 64 features (ResNeXt's cardinality and width).
    """

    layers: Layers
    features: int
    stride: int
    shortcut: Shortcut
    zero_init: bool
    drop_path: float
    train: bool
    attention: Attention = "none"
    groups: int = 1
    group_width: int = 64
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inner = self.features * self.group_width // 64 * self.groups
        y = ConvNormAct(self.layers, inner, 1, name="conv1")(x)
        y = ConvNormAct(self.layers, inner, 3, self.stride, self.groups, name="conv2")(y)
        y = self.layers.conv(self.features * self.expansion, 1, name="conv3")(y)
        y = _last_norm(self.layers, self.zero_init)(y)
        if self.attention == "se":
            y = SqueezeExcite(self.layers, name="squeeze_excite")(y)
        y = DropPath(self.drop_path, self.train, name="drop_path")(y)
        return _join(self.layers, x, y, self.stride, self.shortcut)


def _last_norm(layers: Layers, zero_init: bool) -> Callable[[jax.Array], jax.Array]:
    """The norm that ends a branch; a scale of zero makes the block start as the identity (arXiv:1706.02677)."""
    scale = nn.initializers.zeros if zero_init else nn.initializers.ones
    return layers.norm(scale_init=scale, name="norm_last")


def _join(layers: Layers, x: jax.Array, branch: jax.Array, stride: int, shortcut: Shortcut) -> jax.Array:
    """Adds the shortcut of `x` to the branch: the identity where shapes agree, else the paper's option A or B.

    A subsamples and fills new channels with zeros, without parameters; B is a 1x1 convolution with a norm.
    """
    if shortcut == "none":
        return layers.activation(branch)
    if x.shape != branch.shape:
        if shortcut == "A":
            x = x[:, ::stride, ::stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, branch.shape[-1] - x.shape[-1])))
        else:
            x = ConvNormAct(layers, branch.shape[-1], 1, stride, activate=False, name="shortcut")(x)
    return layers.activation(x + branch)


class CifarResNet(BlockModel):
    """The paper's section 4.2: three stages of basic blocks on small images, 6n + 2 layers deep.

    `shortcut="none"` is the plain network that the paper compares with.
    """

    depth: int = 20
    """Layers with weights: 8, 14, 20, 32, 44, 56, 110, ... (6n + 2)."""
    width: int = 16
    """Channels of the first stage; the second has twice, the third four times as many."""
    shortcut: Shortcut = "A"
    """Where shapes differ: A pads with zeros, B projects; "none" leaves all shortcuts out."""
    attention: Attention = "none"
    """se: squeeze-and-excitation at the end of each branch."""
    zero_init: bool = False
    """Whether the last norm of each block starts at zero."""
    drop_path: float = 0.0
    """Probability of dropping the last block's branch; it grows linearly from 0 at the first block."""
    dropout: float = 0.0
    """Share of features dropped before the classifier."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        if self.depth < 8 or (self.depth - 2) % 6:
            raise ValueError(f"model.depth is {self.depth}: it must be 6n + 2, as 8, 14, 20, 32, 44, 56 or 110")
        layers = self.layers(train=train)
        x = ConvNormAct(layers, self.width, name="stem")(images)
        x = _stages(self, layers, self.recomputed(BasicBlock), ((self.depth - 2) // 6,) * 3, self.shortcut, x, train)
        return ClassifierHead(self.num_classes, train, self.dropout, name="head")(x)


class ResNet(BlockModel):
    """The paper's section 4.1: four stages on ImageNet, with the stride of v1.5.

    The CIFAR stem is one 3x3 convolution; the ImageNet stem, a 7x7 convolution and a 3x3 max-pooling, makes
    the image four times smaller on each side before the first block.
    """

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    """Blocks of each stage."""
    block: Literal["basic", "bottleneck"] = "bottleneck"
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1."""
    width: int = 64
    """Channels of the first stage (inside of its bottlenecks); each later stage doubles them."""
    stem: Literal["imagenet", "cifar"] = "imagenet"
    """How images enter: for about 224 pixels, or for about 32."""
    stem_stride: int = 1
    """Stride of the CIFAR stem; the ImageNet stem has its own."""
    shortcut: Shortcut = "B"
    """Where shapes differ: A pads with zeros, B projects; "none" leaves all shortcuts out."""
    groups: int = 1
    """Groups of each bottleneck's 3x3 convolution (ResNeXt's cardinality)."""
    group_width: int = 64
    """Channels of such a group for every 64 of `width`: 4 in ResNeXt-50 32x4d, 128 in Wide ResNet-50-2."""
    attention: Attention = "none"
    """se: squeeze-and-excitation at the end of each branch."""
    zero_init: bool = False
    """Whether the last norm of each block starts at zero."""
    drop_path: float = 0.0
    """Probability of dropping the last block's branch; it grows linearly from 0 at the first block."""
    dropout: float = 0.0
    """Share of features dropped before the classifier."""
    drop_block: float = 0.0
    """Share of pixels that the last two stages drop after each block, in squares (arXiv:1810.12890)."""
    drop_block_size: int = 7
    """Side of these squares in pixels."""
    allow_small_images: bool = False
    """Whether the ImageNet stem accepts images below 64 pixels."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers = self.layers(train=train)
        if self.stem == "imagenet":
            x = imagenet_stem(layers, self.width, images, self.allow_small_images)
        else:
            x = ConvNormAct(layers, self.width, 3, self.stem_stride, name="stem")(images)
        block = self.recomputed(BasicBlock)
        if self.block == "bottleneck":
            block = partial(self.recomputed(BottleneckBlock), groups=self.groups, group_width=self.group_width)
        elif (self.groups, self.group_width) != (1, 64):
            raise ValueError("model.groups and model.group_width need model.block to be bottleneck")
        drop = partial(DropBlock, self.drop_block, self.drop_block_size, train) if self.drop_block else None
        x = _stages(self, layers, block, self.stage_sizes, self.shortcut, x, train, drop)
        return ClassifierHead(self.num_classes, train, self.dropout, name="head")(x)


def imagenet_stem(layers: Layers, features: int, images: jax.Array, allow_small: bool) -> jax.Array:
    """Returns the images after a 7x7 convolution with stride 2 and a 3x3 max-pooling with stride 2."""
    check_image_size(images, allow_small)
    x = ConvNormAct(layers, features, 7, 2, name="stem")(images)
    return ops.max_pool(x, 3, stride=2, padding=1)


def check_image_size(images: jax.Array, allow_small: bool) -> None:
    """Makes sure that something is left of the images after the ImageNet stem.

    Raises:
        ValueError: an image side is below 64 pixels, of which the last stage would see less than 2, and
            `allow_small` is off.
    """
    if min(images.shape[1:3]) < 64 and not allow_small:
        raise ValueError(
            f"the ImageNet stem would shrink images of {images.shape[1]} x {images.shape[2]} to almost nothing: "
            "set model.stem to cifar, or model.allow_small_images to True"
        )


def _stages(
    model: CifarResNet | ResNet,
    layers: Layers,
    block: Callable[..., Any],
    sizes: tuple[int, ...],
    shortcut: Shortcut,
    x: jax.Array,
    train: bool,
    drop: Callable[..., Any] | None = None,
) -> jax.Array:
    """Runs all stages; each one but the first begins by halving the image and doubling the channels.

    In the last two stages `drop` follows each block.
    """
    if model.norm == "none" and model.zero_init:
        raise ValueError("model.zero_init needs a norm whose scale starts at zero, but model.norm is none")
    if shortcut == "none" and model.drop_path > 0:
        raise ValueError("model.drop_path must be 0 where model.shortcut is none: nothing would be left of a block")
    total = sum(sizes)
    done = 0
    for stage, size in enumerate(sizes, start=1):
        for i in range(1, size + 1):
            rate = model.drop_path * done / max(total - 1, 1)
            x = block(
                layers,
                features=model.width * 2 ** (stage - 1),
                stride=2 if stage > 1 and i == 1 else 1,
                shortcut=shortcut,
                zero_init=model.zero_init,
                drop_path=rate,
                train=train,
                attention=model.attention,
                name=f"stage{stage}_block{i}",
            )(x)
            if drop and stage >= len(sizes) - 1:
                x = drop(name=f"stage{stage}_block{i}_drop")(x)
            done += 1
    return x
