"""What every named model has in common."""

import dataclasses

import flax.linen as nn
import jax

from convjax.errors import UsageError
from convjax.layers import ActivationName, DtypeName, Initializer, Layers, NormName, he_normal


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
        super().__post_init__()

    def layers(self, *, train: bool, kernel_init: Initializer = he_normal) -> Layers:
        """Returns convolution, norm and activation with this model's choices filled in."""
        return Layers.build(
            norm=self.norm, activation=self.activation, dtype=self.dtype, train=train, kernel_init=kernel_init
        )

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Returns the logits.

        Args:
            images: normalised images `[N, H, W, C]`.
            train: whether batch norms use the batch's statistics and dropout drops.
        """
        raise NotImplementedError


def check_field(name: str, value: object) -> None:
    """Makes sure that a model's field is a sensible number: counts from 1 up, shares and rates from 0 to 1.

    Raises:
        UsageError: it is not; fields of other types pass.
    """
    values = value if isinstance(value, tuple) else (value,)
    if any(isinstance(v, int) and not isinstance(v, bool) and v < 1 for v in values):
        raise UsageError(f"model.{name} is {value}: it must be at least 1")
    if any(isinstance(v, float) and not 0 <= v <= 1 for v in values):
        raise UsageError(f"model.{name} is {value}: it must be from 0 to 1")
