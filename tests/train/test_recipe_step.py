"""What modern recipes add to a step: mixed images, other losses, growing images, repeated draws, several views."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convjax.data import order
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.boxes import resized
from convjax.data.loader import Batch, Resident
from convjax.data.mixing import Mix, Targets
from convjax.data.sources import Split
from convjax.data.splits import Normalise
from convjax.errors import UsageError
from convjax.models import MLP
from convjax.train import state as states
from convjax.train.config import Config, DataConfig, Mode, OptimConfig, ParallelConfig, TrainConfig
from convjax.train.losses import Loss
from convjax.train.parallel import Advance, Placement
from convjax.train.sizes import Sizes
from convjax.train.step import Step
from convjax.train.views import averaged

RNG = np.random.default_rng(0)
BATCH = Batch(
    jnp.asarray(RNG.integers(0, 256, (8, 8, 8, 1)), jnp.uint8),
    jnp.asarray(RNG.integers(0, 10, 8), jnp.int32),
    jnp.arange(8, dtype=jnp.int32),
)


MIX = DataConfig(augment=Augment(mix=Mix(mixup=0.2)))


class AnySize(nn.Module):
    """A convolution and a mean over the pixels."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        return nn.Dense(10, name="head")(nn.relu(nn.Conv(4, (3, 3), name="conv")(images)).mean((1, 2)))


RATE = optax.constant_schedule(0.1)
STEP = Step(AnySize(), optax.sgd(RATE), RATE, Normalise((0.5,), (0.25,)), seed=1)
STATE = states.init(STEP.model, STEP.optimizer, (8, 8, 1), seed=0)


def loss_of(images: Any, targets: Targets) -> float:
    logits: Any = STEP.model.apply({"params": STATE.params}, STEP.normalise(images), train=True)
    return float((-targets.soft(10, 0.0) * jax.nn.log_softmax(logits)).sum(-1).mean())


@pytest.mark.parametrize("accumulate", [1, 4])
def test_mixed_images_are_learned_with_mixed_labels_in_any_micro_batches(accumulate: int) -> None:
    step = dataclasses.replace(STEP, augment=Augment(mix=Mix(mixup=0.8, cutmix=1.0)), accumulate=accumulate)
    images, targets = step.augmented(STATE.step, BATCH)
    assert (targets.second == BATCH.labels[np.arange(8) ^ 1]).all()
    after, metrics = jax.jit(step.train)(STATE, BATCH)
    # The network has no batch norm: micro-batches change roundings alone.
    assert float(metrics["loss"]) == pytest.approx(loss_of(images, targets), rel=1e-5)
    grads = jax.grad(lambda params: step.loss(params, STATE, images, BATCH, targets)[0])(STATE.params)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, STATE.params, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.params, expected)


def in_every_mode() -> dict[str, float]:
    """Returns how far a step over four devices, of mixed and growing images, is from one on a single device."""
    step = dataclasses.replace(STEP, augment=Augment(mix=Mix(mixup=0.8, cutmix=1.0)), sizes=Sizes((4, 6), (1,)))
    split = Split(np.asarray(BATCH.images), np.asarray(BATCH.labels))
    params: dict[str, Any] = {}
    modes: tuple[Mode, ...] = ("jit", "shard_map", "pmap")
    for mode in (None, *modes):
        asked = ParallelConfig() if mode is None else ParallelConfig(mode=mode, devices=4)
        config = Config(MLP(), data=MIX, train=TrainConfig(batch_size=8), parallel=asked)
        place = Placement.single() if mode is None else Placement.of(config)
        advance = Advance(place, step, Resident(split, place), STATE)
        state = advance.enter(place.initial(lambda: states.init(STEP.model, STEP.optimizer, (8, 8, 1), seed=0)))
        for _ in range(3):
            state, _ = advance(state, place.divide(np.arange(8, dtype=np.int32)))
        params[mode or "one"] = jax.tree.leaves(jax.device_get(advance.leave(state).params))
    return {
        mode: max(float(np.abs(a - b).max()) for a, b in zip(params["one"], params[mode], strict=True))
        for mode in modes
    }


@pytest.mark.slow
def test_mixed_and_growing_images_are_the_same_in_every_mode() -> None:
    code = "import test_recipe_step, json; print(json.dumps(test_recipe_step.in_every_mode()))"
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **flags}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    far = json.loads(done.stdout)
    # Weights of order 1: sums over eight images are rounded in another order.
    assert max(far.values()) < 2e-6, far
    assert len(far) == 3


def test_images_grow_at_the_steps_that_are_planned() -> None:
    step = dataclasses.replace(STEP, sizes=Sizes((4, 6), (3,)))
    advance = jax.jit(step.train)
    for done, side in ((0, 4), (2, 4), (3, 6), (10, 6)):
        assert step.sizes.at(done) == side
        small = jnp.stack([resized(image, (0, 0), (8, 8), (side, side)) for image in BATCH.images])
        _, metrics = advance(STATE.replace(step=jnp.int32(done)), BATCH)
        assert float(metrics["loss"]) == pytest.approx(loss_of(small, Targets.of(BATCH.labels)), rel=1e-5)


def test_a_repeated_example_is_augmented_each_time_otherwise() -> None:
    ids = [order.batch_ids(0, step, batch_size=6, examples=4, repeats=3) for step in range(2)]
    # Two examples a batch, each three times, neighbours different; both batches make an epoch.
    assert all(len(set(draws % 4)) == 2 and (draws[:2] % 4 == draws[2:4] % 4).all() for draws in ids)
    assert sorted(np.concatenate(ids).tolist()) == list(range(12))
    images = np.arange(4 * 4, dtype=np.uint8).reshape(4, 2, 2, 1)
    feed = Resident(Split(images, np.arange(4, dtype=np.int32)), Placement.single())
    batch = feed.read(feed.held, jnp.asarray(ids[0]))
    assert (batch.labels == ids[0] % 4).all()
    assert (np.asarray(batch.images) == images[ids[0] % 4]).all()
    step = dataclasses.replace(STEP, augment=Augment(flip=HorizontalFlip(0.5)))
    many = Batch(jnp.repeat(BATCH.images[:1], 64, 0), jnp.repeat(BATCH.labels[:1], 64), 8 * jnp.arange(64))
    flipped = (step.augmented(STATE.step, many)[0] != BATCH.images[0]).any((1, 2, 3))
    assert 12 <= int(flipped.sum()) <= 52  # 64 fair coins


def test_binary_cross_entropy_by_hand() -> None:
    logits, targets = jnp.array([[2.0, -1.0, 0.5]]), Targets(jnp.array([0]), jnp.array([1]), jnp.array([0.75]))
    logistic = 1 / (1 + np.exp(-np.array([2.0, -1.0, 0.5])))

    def binary(soft: list[float]) -> float:
        t = np.array(soft)
        return float(-(t * np.log(logistic) + (1 - t) * np.log(1 - logistic)).mean())

    for loss, soft in (
        (Loss("sigmoid"), [0.75, 0.25, 0.0]),
        (Loss("sigmoid", smoothing=0.3), [0.7 * 0.75 + 0.1, 0.7 * 0.25 + 0.1, 0.1]),
        (Loss("sigmoid", threshold=0.2), [1.0, 1.0, 0.0]),
        (Loss("sigmoid", threshold=0.3), [1.0, 0.0, 0.0]),
        # Smoothed first, as timm does it: 0.7 * 0.25 + 0.1 is above the threshold, 0.25 is not.
        (Loss("sigmoid", smoothing=0.3, threshold=0.26), [1.0, 1.0, 0.0]),
    ):
        np.testing.assert_allclose(loss(logits, targets), [binary(soft)], rtol=1e-5)


def test_views_average_over_mirrored_and_moved_images() -> None:
    def logits(images: jax.Array) -> jax.Array:
        # Each pixel by itself: what was looked at can be read off.
        return images.reshape(len(images), -1).astype(jnp.float32)

    images = jnp.asarray(RNG.integers(0, 256, (2, 4, 4, 1)), jnp.uint8)
    x = np.asarray(images[..., 0], float)
    mirror = (x + x[:, :, ::-1]) / 2
    np.testing.assert_allclose(averaged(logits, images, "flip"), mirror.reshape(2, -1))
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    parts = [wide[:, 2:, 2:], wide[:, :-2, :-2]]
    moved = sum((part + part[:, :, ::-1]) / 2 for part in parts) / 2
    np.testing.assert_allclose(averaged(logits, images, "flip_shift"), ((mirror + moved) / 2).reshape(2, -1))
    assert (averaged(logits, images, "plain") == logits(images)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Config(MLP(), data=MIX, train=TrainConfig(batch_size=6, accumulate=2)),
            r"train\.batch_size is 6: it must be such that train\.accumulate parts of it hold pairs",
        ),
        (
            lambda: Config(MLP(), DataConfig(augment=Augment(repeats=3)), train=TrainConfig(batch_size=8)),
            r"data\.augment\.repeats is 3: it must be a divisor of 8",
        ),
        (lambda: TrainConfig(loss_threshold=0.2), r"train\.loss_threshold is 0\.2: it must be .* sigmoid alone"),
        (lambda: TrainConfig(sizes=(8, 4)), r"train\.sizes_at is \(\): it must be rising shares .* one less than"),
        (lambda: TrainConfig(sizes=(8, 4), sizes_at=(1.5,)), r"train\.sizes_at is \(1\.5,\)"),
        (lambda: TrainConfig(loss_function="hinge"), r"train\.loss_function is 'hinge'"),  # type: ignore[arg-type]
        (lambda: OptimConfig(schedule="none"), r"optim\.schedule is 'none'"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
