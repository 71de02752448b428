"""One training step and one evaluation step: pure functions of state and batch."""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from convjax.data.augment import Augment
from convjax.data.loader import Batch
from convjax.data.mixing import Targets
from convjax.data.splits import Normalise
from convjax.ops.epilogue import with_epilogues
from convjax.train.freeze import Freeze
from convjax.train.losses import Loss
from convjax.train.scores import Scores, score
from convjax.train.sharpness import uphill
from convjax.train.sizes import Sizes
from convjax.train.state import TrainState, stream
from convjax.train.views import Views, averaged
from convjax.train.whole_batch import intercepted

AUXILIARY = "auxiliary_logits"
"""The collection into which a model's auxiliary classifiers put their logits in training."""
AUXILIARY_WEIGHT = 0.3
"""What the loss of each is multiplied by (Szegedy et al. 2014, arXiv:1409.4842, section 5)."""


def augmented(
    augment: Augment, seed: int | jax.Array, step: jax.Array, batch: Batch, size: int | None = None
) -> tuple[jax.Array, Targets]:
    """Returns a batch's images as a network sees them at a step, but for `Step.normalise`, and what they show.

    An example's augmentation is a function of (seed, step, example), and of its neighbour's where they are mixed; a
    flip that alternates, of (seed, epoch, example).

    Args:
        augment: what is done.
        seed: the run's seed.
        step: steps done.
        batch: the batch.
        size: see `Sizes.at`.

    Returns:
        `[N, H, W, C]`, uint8, or float32 of the same range where images are mixed; and their targets.
    """
    key = jax.random.fold_in(stream(seed, "augment"), step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch.ids)
    images = batch.images
    if augment.flip.alternate:
        assert batch.epochs is not None, "an alternating flip is for batches of a training"
        images = augment.flip.alternated(stream(seed, "flip"), images, batch.ids, batch.epochs)
    return augment.mixed(keys, augment(keys, images, size), batch.labels)


@dataclasses.dataclass(frozen=True)
class Step:
    """The training step and the evaluation step of one configuration.

    Attributes:
        model: called as `model(images, train=...)`.
        optimizer: turns gradients into updates.
        rate: learning rate by step, for the log.
        normalise: applied to the augmented uint8 images.
        augment: applied to training images.
        criterion: the training loss.
        ema: decay of the moving averages; 0 keeps none.
        seed: the run's seed.
        accumulate: micro-batches that a batch is taken in, one after the other.
        groups: parts of a (micro-)batch that batch norms normalise each by its own statistics.
        synchronised: whether batch norms take their statistics over all devices of a mapped axis.
        freeze: what of the network stays as it is.
        sharpness: radius rho of sharpness-aware minimisation; 0 takes gradients where the parameters are.
        sizes: to which images are brought while the run goes on.
        views: what evaluation averages over.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    rate: optax.Schedule
    normalise: Normalise
    augment: Augment = Augment()
    criterion: Loss = Loss()
    ema: float = 0.0
    seed: int | jax.Array = 0
    accumulate: int = 1
    groups: int = 1
    synchronised: bool = True
    freeze: Freeze = Freeze()
    sharpness: float = 0.0
    sizes: Sizes = Sizes()
    views: Views = "plain"

    def train(
        self, state: TrainState, batch: Batch, *, axis_name: str | None = None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Returns the next state, and the batch's loss, accuracy, gradient norm and learning rate as scalars.

        Where loss or gradient norm are not finite, nothing of the state changes but `step` and the count of such
        steps, which is among the scalars too.

        Args:
            state: the state, the same on all devices.
            batch: the batch, or under a mapped axis this device's part of it.
            axis_name: the mapped axis over whose devices the batch is divided; None where this is all of it.
        """
        gradients = partial(self._gradients, axis_name)
        loss, accuracy, batch_stats, grads = self.sizes.switch(gradients, state.step, state, batch)
        if self.sharpness:
            aside = state.replace(params=uphill(state.params, grads, self.sharpness))
            *_, grads = self.sizes.switch(gradients, state.step, aside, batch)
        with jax.named_scope("optimizer"):
            updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
            new = {"params": optax.apply_updates(state.params, updates), "batch_stats": batch_stats}
            old = {"params": state.params, "batch_stats": state.batch_stats}
            updated = state.replace(**self.freeze.hold(new, old), opt_state=opt_state)
            updated = updated.replace(ema=self._averages(updated))
            norm = optax.tree.norm(grads)
            finite = jnp.isfinite(loss) & jnp.isfinite(norm)
            following = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
        broken = ~finite
        if state.loss_scale:
            excused = state.loss_scale.excuses(loss)
            broken &= ~excused
            following = following.replace(loss_scale=state.loss_scale.adjust(finite, excused))
        following = following.replace(step=state.step + 1, skipped=state.skipped + broken)
        metrics = {
            "loss": loss,
            "accuracy": accuracy,
            "gradient_norm": norm,
            "learning_rate": jnp.asarray(self.rate(state.updates()), jnp.float32),
            "broken": broken,
            "skipped": following.skipped,
        }
        if state.loss_scale:
            metrics |= {"loss_scale": state.loss_scale.scale}
        return following, metrics

    def _gradients(
        self, axis_name: str | None, size: int | None, state: TrainState, batch: Batch
    ) -> tuple[jax.Array, jax.Array, Any, Any]:
        """Returns loss, accuracy, new batch statistics and gradients of the whole batch, by `accumulate` micro-batches.

        Micro-batch k holds the examples k, k + `accumulate`, ... of the batch, so that each is divided among all
        devices as the batch is; where neighbours are mixed it holds such pairs. Batch norms take one after the other,
        as they would take so many small batches.
        """

        def micro(batch_stats: Any, part: Batch) -> tuple[Any, Any]:
            scaled = jax.value_and_grad(self._scaled_loss, has_aux=True)
            (_, (loss, correct, batch_stats)), grads = scaled(
                state.params, state.replace(batch_stats=batch_stats), part, axis_name, size
            )
            return batch_stats, (loss, correct, grads)

        count = self.accumulate
        if count == 1:
            batch_stats, (loss, accuracy, grads) = micro(state.batch_stats, batch)
        else:
            together = 2 if self.augment.mix.on else 1

            def divided(x: jax.Array) -> jax.Array:
                apart = x.reshape(-1, count, together, *x.shape[1:]).swapaxes(0, 1)
                return apart.reshape(count, -1, *x.shape[1:])

            parts = jax.tree.map(divided, batch)

            def accumulate(carry: tuple[Any, Any], part: Batch) -> tuple[tuple[Any, Any], None]:
                batch_stats, found = micro(carry[0], part)
                return (batch_stats, jax.tree.map(jnp.add, carry[1], found)), None

            nothing = jax.tree.map(jnp.zeros_like, (jnp.float32(0), jnp.float32(0), state.params))
            (batch_stats, sums), _ = jax.lax.scan(accumulate, (state.batch_stats, nothing), parts)
            loss, accuracy, grads = jax.tree.map(lambda total: total / count, sums)
        if axis_name is not None:
            # The loss is the mean over all devices already, and so are statistics taken over all of them.
            accuracy, batch_stats, grads = jax.lax.pmean((accuracy, batch_stats, grads), axis_name)
        if state.loss_scale:
            grads = jax.tree.map(lambda g: g / state.loss_scale.scale, grads)
        return loss, accuracy, batch_stats, grads

    def _scaled_loss(
        self, params: Any, state: TrainState, batch: Batch, axis_name: str | None, size: int | None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array, Any]]:
        """Returns what is differentiated, and loss, accuracy and new batch statistics with it."""
        images, targets = self.augmented(state.step, batch, size)
        loss, (logits, batch_stats) = self.loss(params, state, images, batch, targets, axis_name=axis_name)
        if axis_name is not None:
            loss = jax.lax.pmean(loss, axis_name)
        accuracy = jnp.mean(logits.argmax(-1) == targets.main)
        scaled = loss * state.loss_scale.scale if state.loss_scale else loss
        return scaled, (loss, accuracy, batch_stats)

    def augmented(self, step: jax.Array, batch: Batch, size: int | None = None) -> tuple[jax.Array, Targets]:
        """Returns the batch's images as the network sees them at a step, and what they show; see `augmented`."""
        return augmented(self.augment, self.seed, step, batch, size)

    def loss(
        self,
        params: Any,
        state: TrainState,
        images: jax.Array,
        batch: Batch,
        targets: Targets | None = None,
        *,
        axis_name: str | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        """Returns the mean loss of augmented images in training mode, and logits and new batch statistics with it.

        With `groups` above 1 each group of images, in their order, is normalised by its own statistics, and the new
        ones are the mean over groups. Auxiliary classifiers take part in the loss. Without targets these are
        the batch's labels.
        """
        aims = Targets.of(batch.labels) if targets is None else targets

        def forward(images: jax.Array, ids: jax.Array) -> tuple[list[jax.Array], Any]:
            logits, changed = self.apply(params, state, images, ids, ["batch_stats", AUXILIARY], axis_name=axis_name)
            every = [jnp.asarray(x, jnp.float32) for x in (logits, *jax.tree.leaves(changed.get(AUXILIARY, {})))]
            return every, changed.get("batch_stats", {})

        if self.groups == 1:
            every, batch_stats = forward(images, batch.ids)
        else:
            apart = jax.tree.map(lambda x: x.reshape(self.groups, -1, *x.shape[1:]), (images, batch.ids))
            # The groups are what is divided among devices: no operation need divide any further.
            with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
                every, batch_stats = jax.vmap(forward)(*apart)
            every = [logits.reshape(len(images), -1) for logits in every]
            batch_stats = jax.tree.map(lambda x: x.mean(0), batch_stats)
        loss, *auxiliary = (self.criterion(logits, aims).mean() for logits in every)
        return loss + AUXILIARY_WEIGHT * sum(auxiliary) if auxiliary else loss, (every[0], batch_stats)

    def apply(
        self,
        params: Any,
        state: TrainState,
        images: jax.Array,
        ids: jax.Array,
        mutable: list[str],
        *,
        axis_name: str | None = None,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Applies the model in training mode, as Linen's `apply` does: returns logits and what changed."""
        frozen = self.freeze.norms(state.batch_stats)
        with intercepted(ids, axis_name if self.synchronised else None, frozen):
            return self.model.apply(
                {"params": self.freeze.stopped(params), "batch_stats": state.batch_stats},
                self.normalise(images),
                train=True,
                rngs={"dropout": jax.random.fold_in(stream(self.seed, "dropout"), state.step)},
                mutable=mutable,
                **options,
            )

    def _averages(self, updated: TrainState) -> Any:
        """Returns the moving averages after an update: `d * average + (1 - d) * value`.

        d is `ema`, but at most `(1 + t) / (10 + t)` at update t, as TensorFlow's ExponentialMovingAverage has it
        with `num_updates`: so the initial values are soon forgotten.
        """
        if not self.ema:
            return {}
        count = jnp.asarray(updated.updates(), jnp.float32)
        decay = jnp.minimum(self.ema, (1 + count) / (10 + count))
        now = {"params": updated.params, "batch_stats": updated.batch_stats}
        return self.freeze.hold(optax.incremental_update(now, updated.ema, 1 - decay), now)

    def logits(self, state: TrainState, images: jax.Array) -> jax.Array:
        """Returns the float32 logits `[N, K]` of uint8 images in evaluation mode."""
        variables = state.evaluated()

        def plain(images: jax.Array) -> jax.Array:
            return jnp.asarray(self.model.apply(variables, self.normalise(images), train=False), jnp.float32)

        return averaged(plain, images, self.views)

    def evaluate(self, state: TrainState, batch: Batch) -> Scores:
        """Returns the scores of each example, in evaluation mode."""
        return score(with_epilogues(self.logits)(state, batch.images), batch.labels)
