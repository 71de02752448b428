"""One training step and one evaluation step: pure functions of state and batch."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from convjax.data.augment import Augment
from convjax.data.loader import Batch
from convjax.data.splits import Normalise
from convjax.train.state import TrainState, stream


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


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Returns the cross-entropy of each example in nats: `[N, K]` logits and `[N]` labels to `[N]`.

    With smoothing s the target is `1 - s + s / K` for the true class and `s / K` for the others
    (Szegedy et al. 2015, arXiv:1512.00567, section 7).
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


@dataclasses.dataclass(frozen=True)
class Step:
    """The training step and the evaluation step of one configuration.

    Attributes:
        model: called as `model(images, train=...)`.
        optimizer: turns gradients into updates.
        rate: learning rate by step, for the log.
        normalise: applied to the augmented uint8 images.
        augment: applied to training images.
        label_smoothing: of the training loss.
        seed: the run's seed.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    rate: optax.Schedule
    normalise: Normalise
    augment: Augment
    label_smoothing: float
    seed: int

    def train(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        """Returns the next state, and the batch's loss, accuracy, gradient norm and learning rate as scalars.

        An example's augmentation is a function of (seed, step, example).
        """
        augment_key = jax.random.fold_in(stream(self.seed, "augment"), state.step)
        example_keys = jax.vmap(jax.random.fold_in, (None, 0))(augment_key, batch.ids)
        images = self.normalise(self.augment(example_keys, batch.images))
        dropout_key = jax.random.fold_in(stream(self.seed, "dropout"), state.step)

        def loss(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            logits, changed = self.model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                rngs={"dropout": dropout_key},
                mutable=["batch_stats"],
            )
            logits = jnp.asarray(logits, jnp.float32)
            losses = cross_entropy(logits, batch.labels, self.label_smoothing)
            return losses.mean(), (logits, changed.get("batch_stats", {}))

        (value, (logits, batch_stats)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            "loss": value,
            "accuracy": jnp.mean(logits.argmax(-1) == batch.labels),
            "gradient_norm": optax.tree.norm(grads),
            "learning_rate": jnp.asarray(self.rate(state.step), jnp.float32),
        }
        state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state, metrics

    def logits(self, state: TrainState, images: jax.Array) -> jax.Array:
        """Returns the float32 logits `[N, K]` of uint8 images in evaluation mode."""
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return jnp.asarray(self.model.apply(variables, self.normalise(images), train=False), jnp.float32)

    def evaluate(self, state: TrainState, batch: Batch) -> Scores:
        """Returns the scores of each example, in evaluation mode."""
        logits = self.logits(state, batch.images)
        true = jnp.take_along_axis(logits, batch.labels[:, None], axis=-1)
        # Written so that a logit that is no number beats the true one: such an answer is not right.
        ahead = ~(logits <= true)
        tied_before = (logits == true) & (jnp.arange(logits.shape[-1]) < batch.labels[:, None])
        return Scores(
            loss=cross_entropy(logits, batch.labels),
            prediction=logits.argmax(-1).astype(jnp.int32),
            confidence=jax.nn.softmax(logits).max(-1),
            rank=(ahead | tied_before).sum(-1).astype(jnp.int32),
        )
