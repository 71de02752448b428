"""What is frozen stays, bit for bit; what has a factor on its rate moves by that factor."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convjax.data.loader import Batch
from convjax.data.splits import Normalise
from convjax.errors import UsageError
from convjax.models import MLP, DenseNet
from convjax.train import freeze, optim
from convjax.train import state as states
from convjax.train.config import OptimConfig
from convjax.train.freeze import Freeze
from convjax.train.patterns import names
from convjax.train.schedule import schedule
from convjax.train.step import Step

PARAMS = {
    "stem": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5])},
    "head": {"kernel": jnp.array([3.0, 0.7]), "bias": jnp.array([4.0])},
}
GRADS = {
    "stem": {"kernel": jnp.array([0.3, 0.25]), "bias": jnp.array([-0.1])},
    "head": {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([0.0])},
}


def update(steps: int = 1, **fields: Any) -> tuple[Any, Any]:
    """Returns the last of some updates with the same gradients, and the optimizer's state after it."""
    config = OptimConfig(lr=0.05, schedule="constant", **fields)
    freeze.check(config, PARAMS)
    transformation = optim.optimizer(config, optax.constant_schedule(config.lr))
    state = transformation.init(PARAMS)
    for _ in range(steps):
        updates, state = transformation.update(GRADS, state, PARAMS)
    return updates, state


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_rate_of_a_tenth_makes_exactly_a_tenth_of_the_update(name: Any) -> None:
    plain, _ = update(name=name, weight_decay=0.1)
    slow, _ = update(name=name, weight_decay=0.1, rates=("stem/*=0.1",))
    for leaf in ("kernel", "bias"):
        expected = np.asarray(plain["stem"][leaf]) * np.float32(0.1)
        np.testing.assert_array_equal(slow["stem"][leaf], expected)
        np.testing.assert_array_equal(slow["head"][leaf], plain["head"][leaf])
    assert plain["stem"]["kernel"].all()


@pytest.mark.parametrize(("name", "moments"), [("sgd", 1), ("adamw", 2)])
def test_what_is_frozen_has_no_update_no_decay_and_no_optimizer_state(name: Any, moments: int) -> None:
    updates, state = update(3, name=name, weight_decay=0.5, freeze=("stem/*",))
    assert not np.any(updates["stem"]["kernel"])
    assert not np.any(updates["stem"]["bias"])
    plain, _ = update(3, name=name, weight_decay=0.5)
    jax.tree.map(np.testing.assert_array_equal, updates["head"], plain["head"])
    kept = [name for name, leaf in zip(names(state), jax.tree.leaves(state), strict=True) if leaf.ndim]
    assert len(kept) == 2 * moments
    assert all(name.endswith(("head/kernel", "head/bias")) for name in kept)


def test_gradients_are_clipped_by_the_norm_of_what_is_trained() -> None:
    # The head's gradient is (3, 4): its norm is 5.
    updates, _ = update(clip_norm=1.0, momentum=0.0, weight_decay=0.0, freeze=("stem/*",), rates=("head/bias=2",))
    np.testing.assert_allclose(updates["head"]["kernel"], [-0.05 * 3 / 5, -0.05 * 4 / 5], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"freeze": ("stam/*",)}, r"optim\.freeze has 'stam/\*', which matches no parameter; nearest are stem/bias, "),
        ({"freeze": ("stem/*", "tail/*")}, r"optim\.freeze has 'tail/\*'"),
        ({"rates": ("heads/kernel=0.1",)}, r"optim\.rates has 'heads/kernel', which .* nearest are head/kernel, "),
        ({"rates": ("stem/*=0.1", "*/bias=0.2")}, r"stem/bias matches 'stem/\*' of .* and '\*/bias' of optim\.rates"),
        ({"freeze": ("stem/*",), "rates": ("*/bias=0.2",)}, r"stem/bias matches optim\.freeze and '\*/bias'"),
        ({"freeze": ("*",)}, r"optim\.freeze is \('\*',\): it leaves no parameter to train"),
    ],
)
def test_patterns_that_miss_or_meet_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        freeze.check(OptimConfig(**fields), PARAMS)


@pytest.mark.parametrize("rate", ["stem/*", "stem/*=", "=0.1", "stem/*=0", "stem/*=-1", "stem/*=nan", "stem/*=inf", ""])
def test_a_rate_that_is_no_rate_is_refused(rate: str) -> None:
    with pytest.raises(UsageError, match=r"a value of optim\.rates is .*'stage1\*/\*=0.1'"):
        OptimConfig(rates=(rate,))


BATCH = Batch(
    jnp.asarray(np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype(np.uint8)),
    jnp.arange(16, dtype=jnp.int32) % 10,
    jnp.arange(16, dtype=jnp.int32),
)


def make(model: nn.Module, patterns: Sequence[str], statistics: bool = True, ema: float = 0.0) -> tuple[Step, Any]:
    config = OptimConfig(lr=0.1, schedule="constant", freeze=tuple(patterns), freeze_statistics=statistics)
    if not hasattr(model, "norm"):
        config = dataclasses.replace(config, decay=("*",), no_decay=())
    rate = schedule(config, steps=10, warmup=0)
    held = Freeze(config.freeze, statistics)
    step = Step(model, optim.optimizer(config, rate), rate, Normalise((0.5,) * 3, (0.25,) * 3), ema=ema, freeze=held)
    return step, states.init(model, step.optimizer, (8, 8, 3), 0, ema=bool(ema))


def leaves(tree: Any) -> dict[str, Any]:
    return dict(zip(names(tree), map(np.asarray, jax.tree.leaves(tree)), strict=True))


def test_the_average_of_what_stands_still_is_itself() -> None:
    step, state = make(MLP(hidden=(4,)), ["dense1/*", "norm1/*"], ema=0.9)
    # From elsewhere: an average that starts at the value leaves it by rounding alone, and not each time.
    after, _ = jax.jit(step.train)(state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema)), BATCH)
    for layer in ("dense1", "norm1"):
        jax.tree.map(np.testing.assert_array_equal, after.ema["params"][layer], after.params[layer])
    jax.tree.map(np.testing.assert_array_equal, after.ema["batch_stats"], after.batch_stats)
    # The first decay is 1 / 10: of the distance of 1 a tenth is left.
    assert np.abs(after.ema["params"]["head"]["bias"] - after.params["head"]["bias"]).min() > 0.05


@pytest.mark.parametrize("statistics", [True, False])
def test_frozen_layers_keep_their_bits_and_the_others_move(statistics: bool) -> None:
    step, first = make(MLP(hidden=(8, 8)), ["dense1/*", "norm1/*"], statistics, ema=0.9)
    advance, state = jax.jit(step.train), first
    for _ in range(4):
        state, _ = advance(state, BATCH)
    for kind in ("params", "batch_stats", "ema"):
        for name, value in leaves(getattr(state, kind)).items():
            still = name.removeprefix("params/").removeprefix("batch_stats/").startswith(("dense1/", "norm1/"))
            if "mean" in name or "var" in name:
                still &= statistics
            assert np.array_equal(value, leaves(getattr(first, kind))[name]) == still, name


class Stock(nn.Module):
    """Stock batch norms, which may be told of training when they are made, by name, or by place."""

    told: str

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Conv(4, (3, 3), name="conv")(images)
        if self.told == "when made":
            x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        elif self.told == "by name":
            x = nn.BatchNorm(name="norm")(x, use_running_average=not train)
        else:
            x = nn.BatchNorm(name="norm")(x, not train)
        return nn.Dense(10, name="head")(x.mean(axis=(1, 2)))


DENSE = DenseNet(num_classes=10, block_sizes=(2,), growth=4, stem_features=8, stem="cifar")


@pytest.mark.parametrize(
    ("model", "norms"),
    [*((Stock(told), ("norm/*",)) for told in ("when made", "by name", "by place")), (DENSE, ("*norm*/*",))],
    ids=["when made", "by name", "by place", "told what others took"],
)
def test_frozen_norms_normalise_in_training_as_in_evaluation(model: nn.Module, norms: tuple[str, ...]) -> None:
    logits = {}
    for patterns in (["head/*", *norms], ["head/*"]):
        step, state = make(model, patterns)
        _, (logits[len(patterns)], _) = step.loss(state.params, state, BATCH.images, BATCH)
    np.testing.assert_allclose(logits[2], step.logits(state, BATCH.images), rtol=1e-6)
    # A pattern that matches parameters alone leaves the norm to the batch.
    assert np.abs(logits[1] - logits[2]).max() > 0.1


def test_the_gradient_of_what_is_frozen_is_not_computed() -> None:
    dots, norms = {}, {}
    for patterns in ((), ("dense1/*", "norm1/*")):
        step, state = make(MLP(hidden=(8,)), patterns)
        advance = jax.jit(step.train)
        dots[patterns] = str(advance.lower(state, BATCH).compile().as_text()).count(" dot(")
        _, metrics = advance(state, BATCH)
        grads = jax.grad(lambda params, step=step, state=state: step.loss(params, state, BATCH.images, BATCH)[0])
        norms[patterns] = float(metrics["gradient_norm"])
        assert norms[patterns] == pytest.approx(float(optax.tree.norm(grads(state.params))), rel=1e-5)
    # Two products forwards; backwards one for each kernel, and one for what lies between them.
    assert list(dots.values()) == [5, 3]
    assert len(set(norms.values())) == 2
