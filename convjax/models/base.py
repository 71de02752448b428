"""What every named model has in common."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from convjax.errors import UsageError, check_choices
from convjax.layers import ActivationName, DtypeName, Layers
from convjax.norms import NormName

_COUNTS = (
    "num_classes",
    "width",
    "depth",
    "hidden",
    "stage_sizes",
    "stem_stride",
    "block_sizes",
    "growth",
    "stem_features",
    "groups",
    "group_width",
    "stage_widths",
    "patch",
    "pool_size",
    "drop_block_size",
)
_RATES = ("dropout", "block_dropout", "drop_path", "drop_block", "batch_decay")
_FACTORS = ("width_factor", "depth_factor", "batch_epsilon")


class Model(nn.Module):
    """An image classifier: `[N, H, W, C]` images to `[N, num_classes]` float32 logits.

    A model's fields are its configuration: numbers, strings and tuples of them, so that they can be set on
    the command line and written to JSON. Parameters are float32 whatever `dtype` is.
    """

    num_classes: int = 10
    """Number of classes."""
    norm: NormName = "batch"
    """Normalisation after each convolution."""
    activation: ActivationName = "relu"
    """Nonlinearity."""
    dtype: DtypeName = "float32"
    """What the network computes in; parameters, statistics and logits stay float32."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_field(field.name, getattr(self, field.name, None))
        check_choices(self, "model")
        super().__post_init__()

    def layers(self, *, train: bool, **choices: Any) -> Layers:
        """Returns convolution, norm and activation with this model's choices, and a family's own, filled in."""
        fields = {"norm": self.norm, "activation": self.activation, "dtype": self.dtype}
        return Layers.build(train=train, **{**fields, **choices})

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Returns the logits.

        Args:
            images: normalised images `[N, H, W, C]`.
            train: whether batch norms use the batch's statistics and dropout drops.
        """
        raise NotImplementedError


class BlockModel(Model):
    """A model that is made of blocks."""

    remat: bool = False
    """Whether blocks keep their input alone for the backward pass and compute the rest again (arXiv:1604.06174)."""

    def recomputed(self, block: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the class of a block as this model makes it; parameters and their names do not depend on it."""
        return nn.remat(block) if self.remat else block


def check_field(name: str, value: object) -> None:
    """Makes sure that a field which the families share is a sensible number; others are their model's own affair.

    Raises:
        UsageError: it is not.
    """
    values = value if isinstance(value, tuple) else (value,)
    if name in _COUNTS and any(not isinstance(v, int) or v < 1 for v in values):
        raise UsageError(f"model.{name} is {value}: it must be at least 1")
    if name in _RATES and any(not 0 <= v < 1 for v in values):
        raise UsageError(f"model.{name} is {value}: it must be from 0 to below 1")
    if name in _FACTORS and any(not v > 0 for v in values):
        raise UsageError(f"model.{name} is {value}: it must be above 0")
    if name == "compression" and any(not 0 < v <= 1 for v in values):
        raise UsageError(f"model.{name} is {value}: it must be above 0 and at most 1")
