"""Every optimizer: its first updates by the paper's formula, and that nothing a run does to its state breaks it."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convjax.data.loader import Batch
from convjax.data.splits import Normalise
from convjax.errors import UsageError
from convjax.models import MLP
from convjax.train import freeze, optim
from convjax.train import state as states
from convjax.train.averaging import evaluated
from convjax.train.checkpoint import Checkpoints
from convjax.train.config import Config, OptimConfig, ParallelConfig, TrainConfig
from convjax.train.freeze import Freeze
from convjax.train.log import Mark
from convjax.train.optim_config import EPSILONS, OptimizerName
from convjax.train.parallel import Placement
from convjax.train.schedule import ending, schedule
from convjax.train.sharpness import uphill
from convjax.train.step import Step

RNG = np.random.default_rng(0)
LR, B1, B2, DECAY, EPSILON = 0.1, 0.9, 0.99, 0.05, 1e-4
KERNEL, BIAS = RNG.normal(size=(4, 3)), RNG.normal(size=3)
GRADS = [(RNG.normal(size=(4, 3)), RNG.normal(size=3)) for _ in range(3)]
Weights = np.ndarray[Any, np.dtype[np.float64]]
Rule = Callable[[int, Weights, Weights, float, dict[str, Any]], Weights]
"""A function of step (from 1), weights, gradient, decay and memory that returns the new weights."""


def config(name: OptimizerName, **fields: Any) -> OptimConfig:
    epsilon = {"epsilon": EPSILON} if name in EPSILONS else {}
    return OptimConfig(
        **{
            "name": name,
            "lr": LR,
            "momentum": B1,
            "beta2": B2,
            "weight_decay": DECAY,
            "schedule": "constant",
            "muon": ("dense1/kernel",),
            **epsilon,
            **fields,
        }
    )


def rmsprop(t: int, w: Weights, g: Weights, decay: float, m: dict[str, Any]) -> Weights:
    g = g + decay * w
    m["square"] = B2 * m.get("square", 1.0) + (1 - B2) * g**2
    m["velocity"] = B1 * m.get("velocity", 0.0) + LR * g / np.sqrt(m["square"] + EPSILON)
    return w - m["velocity"]


def moments(t: int, g: Weights, m: dict[str, Any], b1: float = B1) -> Weights:
    m["first"] = b1 * m.get("first", 0.0) + (1 - b1) * g
    m["second"] = B2 * m.get("second", 0.0) + (1 - B2) * g**2
    return m["first"] / (1 - b1**t) / (np.sqrt(m["second"] / (1 - B2**t)) + EPSILON)


def adam(t: int, w: Weights, g: Weights, decay: float, m: dict[str, Any]) -> Weights:
    return w - LR * moments(t, g + decay * w, m)


def adamw(t: int, w: Weights, g: Weights, decay: float, m: dict[str, Any]) -> Weights:
    return w - LR * (moments(t, g, m) + decay * w)


def lamb(t: int, w: Weights, g: Weights, decay: float, m: dict[str, Any]) -> Weights:
    u = moments(t, g, m) + decay * w
    return w - LR * np.linalg.norm(w) / np.linalg.norm(u) * u


def sgd(t: int, w: Weights, g: Weights, decay: float, m: dict[str, Any]) -> Weights:
    g = g + decay * w
    m["velocity"] = B1 * m.get("velocity", 0.0) + g
    return w - LR * (g + B1 * m["velocity"])


def lars(t: int, w: Weights, g: Weights, decay: float, m: dict[str, Any]) -> Weights:
    g = g + decay * w
    if decay:  # biases and norms are left to plain momentum
        g = 0.001 * np.linalg.norm(w) / np.linalg.norm(g) * g
    m["velocity"] = B1 * m.get("velocity", 0.0) + LR * g
    return w - (LR * g + B1 * m["velocity"])


def lion(t: int, w: Weights, g: Weights, decay: float, m: dict[str, Any]) -> Weights:
    u = np.sign(B1 * m.get("slow", 0.0) + (1 - B1) * g)
    m["slow"] = B2 * m.get("slow", 0.0) + (1 - B2) * g
    return w - LR * (u + decay * w)


def schedule_free(direction: Callable[..., Weights]) -> Rule:
    def rule(t: int, y: Weights, g: Weights, decay: float, m: dict[str, Any]) -> Weights:
        z = m.get("z", y) - LR * direction(t, g, m, decay * y)
        m["x"] = (1 - 1 / t) * m.get("x", y) + z / t
        m["z"] = z
        return B1 * m["x"] + (1 - B1) * z

    return rule


RULES: dict[OptimizerName, Rule] = {
    "sgd": sgd,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "lamb": lamb,
    "lars": lars,
    "lion": lion,
    "schedule_free_sgd": schedule_free(lambda t, g, m, decayed: g + decayed),
    "schedule_free_adamw": schedule_free(lambda t, g, m, decayed: moments(t, g, m, 0.0) + decayed),
}


def taken(settings: OptimConfig, grads: list[tuple[Weights, Weights]]) -> tuple[Any, Any]:
    """Returns parameters and optimizer state after updates."""
    params: Any = {"dense1": {"kernel": jnp.asarray(KERNEL, jnp.float32), "bias": jnp.asarray(BIAS, jnp.float32)}}
    transformation = optim.optimizer(settings, optax.constant_schedule(LR))
    state = transformation.init(params)
    for kernel, bias in grads:
        given = {"dense1": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}}
        updates, state = transformation.update(given, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("name", RULES)
def test_three_updates_follow_the_formula(name: OptimizerName) -> None:
    params, state = taken(config(name), GRADS)
    averaged = evaluated(params, state)
    for field, start, decay in (("kernel", KERNEL, DECAY), ("bias", BIAS, 0.0)):
        memory: dict[str, Any] = {}
        expected = start
        for t, grads in enumerate(GRADS, start=1):
            expected = RULES[name](t, expected, grads[0 if field == "kernel" else 1], decay, memory)
        # Some thirty operations in float32.
        np.testing.assert_allclose(params["dense1"][field], expected, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(averaged["dense1"][field], memory.get("x", expected), rtol=2e-5, atol=5e-6)


def test_all_optimizers_are_tested() -> None:
    assert {*RULES, "muon", "muon_sgd"} == set(get_args(OptimizerName))


def test_muon_takes_orthogonal_steps_on_matrices_and_adamws_on_the_rest() -> None:
    params, _ = taken(config("muon", nesterov=False), GRADS[:1])
    step = (KERNEL - np.asarray(params["dense1"]["kernel"])) / LR - DECAY * KERNEL
    # 4 inputs, 3 outputs: no factor for the shape. Five Newton-Schulz iterations bring all singular values near 1.
    values = np.linalg.svd(step, compute_uv=False)
    assert values.min() > 0.65
    assert values.max() < 1.25
    # It points as the gradient does: their product is the nuclear norm, up to those iterations.
    nuclear = np.linalg.svd(GRADS[0][0], compute_uv=False).sum()
    assert (step * GRADS[0][0]).sum() == pytest.approx(nuclear, rel=0.25)
    np.testing.assert_allclose(params["dense1"]["bias"], BIAS - LR * np.sign(GRADS[0][1]), rtol=1e-3, atol=1e-3)


def orthogonalised(m: Weights, steps: int) -> Weights:
    """Jordan's iteration: X becomes a X + b (X X') X + c (X X')^2 X, from the matrix over its Frobenius norm."""
    x = m / np.linalg.norm(m)
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


def test_muon_sgd_turns_matrices_of_constant_norm_and_leaves_the_rest_to_sgd() -> None:
    fields: dict[str, Any] = {"momentum": 0.6, "sgd_momentum": B1, "muon_steps": 3, "epsilon": 1e-7}
    params, _ = taken(config("muon_sgd", **fields), GRADS)
    kernel, sum_of_gradients = KERNEL, np.zeros_like(KERNEL)
    for gradient, _ in GRADS:
        sum_of_gradients = 0.6 * sum_of_gradients + gradient
        kernel = kernel * np.sqrt(3) / np.linalg.norm(kernel)  # three outputs
        kernel = kernel - LR * orthogonalised(gradient + 0.6 * sum_of_gradients, 3)
    np.testing.assert_allclose(params["dense1"]["kernel"], kernel, rtol=2e-5, atol=2e-6)
    bias = BIAS
    memory: dict[str, Any] = {}
    for t, (_, gradient) in enumerate(GRADS, start=1):
        bias = sgd(t, bias, gradient, 0.0, memory)
    np.testing.assert_allclose(params["dense1"]["bias"], bias, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("together", [True, False])
def test_factors_on_rates_may_leave_the_decay_as_it_is(together: bool) -> None:
    fields: dict[str, Any] = {"momentum": 0.0, "rates": ("*/kernel=4",), "decay_by_rates": together}
    params, _ = taken(config("sgd", **fields), GRADS[:1])
    expected = KERNEL - LR * (4 * GRADS[0][0] + (4 if together else 1) * DECAY * KERNEL)
    np.testing.assert_allclose(params["dense1"]["kernel"], expected, rtol=2e-5, atol=2e-6)


def test_a_schedule_may_end_before_the_run() -> None:
    settings = config("sgd", momentum=0.0, weight_decay=0.0, schedule="linear", ends=("*/bias=2 steps",))
    params: Any = {"dense1": {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}}
    ones = jax.tree.map(jnp.ones_like, params)
    ends = [ending(settings, steps=2, warmup=0)]
    transformation = optim.optimizer(settings, schedule(settings, steps=4, warmup=0), ends)
    state, moved = transformation.init(params), []
    for _ in range(4):
        updates, state = transformation.update(ones, state, params)
        moved.append((float(updates["dense1"]["kernel"][0, 0]), float(updates["dense1"]["bias"][0])))
    kernel, bias = zip(*moved, strict=True)
    np.testing.assert_allclose(kernel, [-LR, -0.75 * LR, -0.5 * LR, -0.25 * LR], rtol=1e-6)
    np.testing.assert_allclose(bias, [-LR, -0.5 * LR, 0, 0], rtol=1e-6)
    with pytest.raises(UsageError, match=r"optim\.ends has an end after 2 steps: optim\.warmup alone has 3"):
        ending(settings, steps=2, warmup=3)


def test_lookahead_goes_half_the_way_every_second_update() -> None:
    plain = config("sgd", momentum=0.0, weight_decay=0.0)
    params, _ = taken(dataclasses.replace(plain, lookahead=2), GRADS)
    slow = KERNEL - 0.5 * LR * (GRADS[0][0] + GRADS[1][0])
    np.testing.assert_allclose(params["dense1"]["kernel"], slow - LR * GRADS[2][0], rtol=1e-5, atol=1e-6)


def test_adaptive_clipping_is_by_units() -> None:
    settings = config("sgd", momentum=0.0, weight_decay=0.0, clip_adaptive=0.5)
    params, _ = taken(settings, GRADS[:1])
    gradient = GRADS[0][0]
    for unit in range(3):  # a column of the kernel is what one output sees
        norm, size = float(np.linalg.norm(gradient[:, unit])), float(np.linalg.norm(KERNEL[:, unit]))
        clipped = gradient[:, unit] * min(1.0, 0.5 * size / norm)
        np.testing.assert_allclose(
            params["dense1"]["kernel"][:, unit], KERNEL[:, unit] - LR * clipped, rtol=1e-5, atol=1e-6
        )


MODEL = MLP(hidden=(8, 8), norm="none", dtype="float16")
BATCH = Batch(
    jnp.asarray(RNG.integers(0, 256, (8, 4, 4, 1)), jnp.uint8),
    jnp.asarray(RNG.integers(0, 10, 8), jnp.int32),
    jnp.arange(8, dtype=jnp.int32),
)
LAYERS = {"layers": ("dense1/*", "dense2/*", "head/*"), "layer_decay": 0.5}
EXTRAS: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in get_args(OptimizerName)},
    "sharpness": {"sharpness": 0.05},
    "lookahead": {"lookahead": 3},
    "clip_adaptive": {"clip_adaptive": 0.1},
    "layers": LAYERS,
    "ends": {"ends": ("head/*=3 steps",)},
}


def step_of(settings: OptimConfig, model: MLP = MODEL) -> tuple[Step, Callable[[], states.TrainState]]:
    rate = optax.constant_schedule(settings.lr)
    ema = 0.0 if settings.schedule_free else 0.9
    step = Step(
        model,
        optim.optimizer(settings, rate, [rate] * len(settings.ends)),
        rate,
        Normalise((0.5,), (0.25,)),
        ema=ema,
        accumulate=2,
        freeze=Freeze(settings.freeze),
        sharpness=settings.sharpness,
    )
    return step, lambda: states.init(model, step.optimizer, (4, 4, 1), seed=0, ema=bool(ema))


def assert_same(one: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, other)


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_state_survives_a_checkpoint_freezing_accumulation_loss_scaling_and_nan(extra: str, tmp_path: Path) -> None:
    fields = {"name": "sgd", **EXTRAS[extra]}
    settings = config(fields.pop("name"), lr=0.01, freeze=("dense2/*",), **fields)
    step, make = step_of(settings)
    start = jax.jit(make)()
    freeze.check(dataclasses.replace(settings, layers=(), layer_decay=1.0), start.params)
    advance = jax.jit(step.train)
    state = start
    for _ in range(2):
        state, metrics = advance(state, BATCH)
        assert not metrics["broken"]
    with Checkpoints(tmp_path / "checkpoints", {}) as checkpoints:
        checkpoints.save(state, Mark(0, ""))
        checkpoints.wait()
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        restored = checkpoints.restore("latest", shapes).state
    assert_same(restored, state)
    for _ in range(2):
        state, _ = advance(state, BATCH)
        restored, _ = advance(restored, BATCH)
    assert_same(restored, state)

    assert_same(state.params["dense2"], start.params["dense2"])
    assert_same(state.evaluated()["params"]["dense2"], start.params["dense2"])
    assert (np.asarray(state.params["dense1"]["kernel"]) != np.asarray(start.params["dense1"]["kernel"])).any()

    poisoned = state.replace(params=jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(jnp.nan), state.params))
    after, metrics = advance(poisoned, BATCH)
    assert metrics["broken"]
    assert int(after.skipped) == 1
    assert_same((after.params, after.opt_state, after.ema), (poisoned.params, poisoned.opt_state, poisoned.ema))


def sharded() -> dict[str, float]:
    """Returns, by optimizer, how far a state divided between two devices is from one that is not, after three steps."""
    far = {}
    for extra, fields in EXTRAS.items():
        settings = config(**{"name": "sgd", "lr": 0.01, **fields})
        step, make = step_of(settings, MLP(hidden=(8, 8), norm="none"))
        found = []
        for place in (Placement.single(), Placement.of(Config(MLP(), parallel=ParallelConfig(shard_optimizer=True)))):
            state = place.initial(make)
            kept = (place.shardings(state), place.replicated)
            advance = jax.jit(step.train, out_shardings=kept)
            for _ in range(3):
                state, _ = advance(state, jax.device_put(BATCH, place.divided))
            divided = any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.opt_state))
            assert divided == place.config.shard_optimizer
            found.append(jax.device_get(state.params))
        far[extra] = max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, found), strict=True))
    return far


@pytest.mark.slow
def test_every_optimizers_state_can_be_divided_among_devices() -> None:
    code = (
        "import test_optimizers, json; print(json.dumps({k: float(v) for k, v in test_optimizers.sharded().items()}))"
    )
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    far = json.loads(done.stdout)
    assert set(far) == set(EXTRAS)
    # Weights of order 1 that moved by some 0.03: sums of eight examples are rounded in another order.
    assert max(far.values()) < 2e-5, far


def test_sharpness_takes_the_gradient_uphill() -> None:
    model = MLP(hidden=(8,), norm="none")
    rate = optax.constant_schedule(0.1)
    step = Step(model, optax.sgd(rate), rate, Normalise((0.5,), (0.25,)), sharpness=0.3)
    state = states.init(model, step.optimizer, (4, 4, 1), seed=0)

    def loss(params: Any) -> Any:
        logits = model.apply({"params": params}, step.normalise(BATCH.images), train=True)
        return optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), BATCH.labels).mean()

    after, metrics = jax.jit(step.train)(state, BATCH)
    # optax's own, told to take both gradients at once.
    theirs = optax.contrib.sam(
        optax.sgd(0.1), optax.chain(optax.contrib.normalize(), optax.sgd(0.3)), sync_period=2, opaque_mode=True
    )
    grads = jax.grad(loss)
    updates, _ = theirs.update(
        grads(state.params), theirs.init(state.params), state.params, grad_fn=lambda params, _: grads(params)
    )
    expected = optax.apply_updates(state.params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.params, expected)
    assert float(metrics["loss"]) == pytest.approx(float(loss(state.params)), rel=1e-5)
    distance = optax.tree.norm(jax.tree.map(jnp.subtract, uphill(state.params, grads(state.params), 0.3), state.params))
    assert float(distance) == pytest.approx(0.3, rel=1e-5)


def test_layers_learn_the_more_slowly_the_earlier_they_are() -> None:
    plain, layered = (config("sgd", momentum=0.0, weight_decay=0.0, **fields) for fields in ({}, LAYERS))
    params = states.init(MODEL, optax.identity(), (4, 4, 1), seed=0).params
    grads = jax.tree.map(jnp.ones_like, params)
    updates = []
    for settings in (plain, layered):
        transformation = optim.optimizer(settings, optax.constant_schedule(LR))
        updates.append(transformation.update(grads, transformation.init(params), params)[0])
    for layer, factor in (("dense1", 0.25), ("dense2", 0.5), ("head", 1.0)):
        assert_same(updates[1][layer], jax.tree.map(lambda u, f=factor: f * u, updates[0][layer]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**LAYERS, "layers": ("dense1/*", "head/*")}, r"parameter dense2/\w+ matches none of optim\.layers"),
        ({**LAYERS, "layers": ("dense*", "dense1/*", "head/*")}, r"dense1/\w+ matches 'dense\*' and 'dense1/\*' of"),
        ({"ends": ("conv/*=1 steps",)}, r"optim\.ends has 'conv/\*', which matches no parameter; nearest"),
        (
            {"ends": ("head/*=1 steps", "*/bias=2 steps")},
            r"head/bias matches 'head/\*' of optim\.ends and '\*/bias' of",
        ),
        ({"ends": ("head/*=1 steps",), "freeze": ("head/*",)}, r"matches optim\.freeze and 'head/\*' of optim\.ends"),
        ({"name": "muon", "muon": ("conv/*",)}, r"optim\.muon has 'conv/\*', which matches no parameter; nearest"),
    ],
)
def test_patterns_must_cover_every_parameter(fields: dict[str, Any], message: str) -> None:
    params = states.init(MODEL, optax.identity(), (4, 4, 1), seed=0).params
    with pytest.raises(UsageError, match=message):
        freeze.check(OptimConfig(**fields), params)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "schedule_free_sgd"}, "optim.schedule is cosine: it must be constant: schedule_free_sgd averages"),
        (
            {"name": "schedule_free_adamw", "schedule": "constant", "lookahead": 5},
            "optim.lookahead is 5: it must be 0: schedule_free_adamw averages by itself",
        ),
        ({"schedule": "onecycle", "warmup": "5 epochs"}, "optim.warmup is 5 epochs: it must be 0 steps: onecycle"),
        ({"schedule": "linear", "cycles": 2}, "optim.cycles is 2: it must be 1: schedule linear has no cycles"),
        ({"clip_norm": 1.0, "clip_adaptive": 0.1}, "optim.clip_adaptive is 0.1: it must be None where optim.clip_norm"),
        ({"name": "lion", "epsilon": 1e-8}, "optim.epsilon is 1e-08: it must be None: lion has none"),
        ({"layer_decay": 0.9}, "optim.layer_decay is 0.9: it must be below 1 where optim.layers are given, 1 where"),
        ({"layers": ("*",)}, "optim.layer_decay is 1.0: it must be below 1 where optim.layers are given"),
        ({"name": "adam", "decay_by_rates": False}, "optim.decay_by_rates is False: it must be on for adam"),
        ({"ends": ("3 epochs",)}, "a value of optim.ends is '3 epochs': it must be a pattern and a duration"),
        ({"ends": ("*/bias=3",)}, r"\*/bias of optim.ends is '3': it must read like '500 steps'"),
        (
            {"name": "schedule_free_sgd", "schedule": "constant", "ends": ("*=3 epochs",)},
            "must be empty: schedule_free_sgd has no schedule",
        ),
        ({"muon_steps": 0}, "optim.muon_steps is 0: it must be at least 1"),
        ({"final": 2.0}, "optim.final is 2.0: it must be from 0 to 1"),
        ({"sharpness": -1.0}, "optim.sharpness is -1.0: it must be at least 0"),
    ],
)
def test_what_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OptimConfig(**fields)


def test_averages_of_averages_are_refused() -> None:
    averaging = OptimConfig(name="schedule_free_sgd", schedule="constant")
    with pytest.raises(UsageError, match=r"train\.ema is 0\.9: it must be 0: schedule_free_sgd averages the weights"):
        Config(model=MLP(), optim=averaging, train=TrainConfig(ema=0.9))
