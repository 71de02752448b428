"""What training minimises."""

import dataclasses
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

from convjax.data.mixing import Targets

LossName: TypeAlias = Literal["softmax", "sigmoid"]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the cross-entropy of each example in nats: `[N, K]` logits and `[N]` labels to `[N]`."""
    return optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, logits.shape[-1]))


@dataclasses.dataclass(frozen=True)
class Loss:
    """The training loss of each example, of logits `[N, K]` and `Targets`.

    With smoothing s the target of a class is `(1 - s) t + s / K`, where t is 1 for the true class and 0 for the others
    (Szegedy et al. 2015, arXiv:1512.00567, section 7), or a share of each of two classes where images are mixed.

    Attributes:
        kind: softmax: cross-entropy over all classes; sigmoid: the mean over classes of the binary cross-entropies
            that say of each class whether it is there (Wightman et al. 2021, arXiv:2110.00476).
        smoothing: s.
        threshold: of sigmoid: targets above it count as 1, others as 0; None takes them as they are.
    """

    kind: LossName = "softmax"
    smoothing: float = 0.0
    threshold: float | None = None

    def __call__(self, logits: jax.Array, targets: Targets) -> jax.Array:
        soft = targets.soft(logits.shape[-1], self.smoothing)
        if self.kind == "softmax":
            return optax.softmax_cross_entropy(logits, soft)
        if self.threshold is not None:
            soft = (soft > self.threshold).astype(jnp.float32)
        return optax.sigmoid_binary_cross_entropy(logits, soft).mean(-1)
