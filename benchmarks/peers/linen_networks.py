"""The networks in stock Linen, written plainly, without any of convjax."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Module = Callable[..., Any]


class LeNet(nn.Module):
    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for features in (6, 16):
            x = nn.Conv(features, (5, 5), padding="VALID", dtype=self.dtype)(x)
            x = nn.avg_pool(jnp.tanh(x), (2, 2), strides=(2, 2))
        x = x.reshape(len(x), -1)
        for features in (120, 84):
            x = jnp.tanh(nn.Dense(features, dtype=self.dtype)(x))
        return nn.Dense(self.classes, dtype=jnp.float32)(x)


class BasicBlock(nn.Module):
    features: int
    stride: int
    conv: Module
    norm: Module
    pads: bool  # instead of projecting

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        stride = (self.stride, self.stride)
        y = nn.relu(self.norm()(self.conv(self.features, (3, 3), stride, padding=1)(x)))
        y = self.norm()(self.conv(self.features, (3, 3), padding=1)(y))
        if x.shape != y.shape:
            if self.pads:
                x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, self.features - x.shape[-1])))
            else:
                x = self.norm()(self.conv(self.features, (1, 1), stride)(x))
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    features: int
    stride: int
    conv: Module
    norm: Module

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        stride = (self.stride, self.stride)
        y = nn.relu(self.norm()(self.conv(self.features, (1, 1))(x)))
        y = nn.relu(self.norm()(self.conv(self.features, (3, 3), stride, padding=1)(y)))
        y = self.norm()(self.conv(4 * self.features, (1, 1))(y))
        if x.shape != y.shape:
            x = self.norm()(self.conv(4 * self.features, (1, 1), stride)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    classes: int
    dtype: Any
    stages: Sequence[int]
    width: int
    block: Module
    large: bool  # a stem for 224 pixels

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        if self.large:
            x = nn.relu(norm()(conv(self.width, (7, 7), (2, 2), padding=3)(x)))
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        else:
            x = nn.relu(norm()(conv(self.width, (3, 3), padding=1)(x)))
        for i, size in enumerate(self.stages):
            for j in range(size):
                stride = 2 if i > 0 and j == 0 else 1
                x = self.block(features=self.width * 2**i, stride=stride, conv=conv, norm=norm)(x)
        return nn.Dense(self.classes, dtype=jnp.float32)(x.mean((1, 2)))


class DenseNet(nn.Module):
    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        x = nn.relu(norm()(conv(64, (7, 7), (2, 2), padding=3)(x)))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for i, size in enumerate((6, 12, 24, 16)):
            if i:
                x = conv(x.shape[-1] // 2, (1, 1))(nn.relu(norm()(x)))
                x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            for _ in range(size):
                y = conv(128, (1, 1))(nn.relu(norm()(x)))
                y = conv(32, (3, 3), padding=1)(nn.relu(norm()(y)))
                x = jnp.concatenate([x, y], axis=-1)
        x = nn.relu(norm()(x))
        return nn.Dense(self.classes, dtype=jnp.float32)(x.mean((1, 2)))


class MobileNetV2(nn.Module):
    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        x = nn.relu6(norm()(conv(32, (3, 3), (2, 2), padding=1)(x)))
        stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
        for expansion, features, blocks, first in (*stages, (6, 320, 1, 1)):
            for j in range(blocks):
                stride, inner = first if j == 0 else 1, expansion * x.shape[-1]
                y = nn.relu6(norm()(conv(inner, (1, 1))(x))) if expansion > 1 else x
                y = conv(inner, (3, 3), (stride, stride), padding=1, feature_group_count=inner)(y)
                y = norm()(conv(features, (1, 1))(nn.relu6(norm()(y))))
                x = x + y if x.shape == y.shape else y
        x = nn.relu6(norm()(conv(1280, (1, 1))(x)))
        x = nn.Dropout(0.2, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.classes, dtype=jnp.float32)(x)


def network(name: str, classes: int, dtype: Any) -> nn.Module:
    """Returns the network that convjax calls so."""
    basic = partial(BasicBlock, pads=False)
    networks: dict[str, Callable[[], nn.Module]] = {
        "lenet5": lambda: LeNet(classes, dtype),
        "resnet20": lambda: ResNet(classes, dtype, (3, 3, 3), 16, partial(BasicBlock, pads=True), large=False),
        "resnet18_cifar": lambda: ResNet(classes, dtype, (2, 2, 2, 2), 64, basic, large=False),
        "resnet50": lambda: ResNet(classes, dtype, (3, 4, 6, 3), 64, Bottleneck, large=True),
        "densenet121": lambda: DenseNet(classes, dtype),
        "mobilenet_v2": lambda: MobileNetV2(classes, dtype),
    }
    return networks[name]()
