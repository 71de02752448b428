"""What an evaluation says of single examples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from convjax.train.losses import cross_entropy


class Scores(NamedTuple):
    """What an evaluation says of each example.

    On the device as the step returns it, or NumPy arrays of a whole split.

    Attributes:
        loss: float32 `[N]`, cross-entropy in nats.
        prediction: int32 `[N]`, class of the largest logit.
        confidence: float32 `[N]`, its probability.
        rank: int32 `[N]`, classes whose logit beats the true one's; 0 is right, below 5 is right by top-5.
    """

    loss: Any
    prediction: Any
    confidence: Any
    rank: Any


def score(logits: jax.Array, labels: jax.Array) -> Scores:
    """Returns the scores of examples: float32 logits `[N, K]`, int32 labels `[N]`."""
    true = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    # Written so that a logit that is no number beats the true one: such an answer is not right.
    ahead = ~(logits <= true)
    tied_before = (logits == true) & (jnp.arange(logits.shape[-1]) < labels[:, None])
    return Scores(
        loss=cross_entropy(logits, labels),
        prediction=logits.argmax(-1).astype(jnp.int32),
        confidence=jax.nn.softmax(logits).max(-1),
        rank=(ahead | tied_before).sum(-1).astype(jnp.int32),
    )
