import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convjax.errors import UsageError
from convjax.train import optim
from convjax.train.optim_config import OptimConfig
from convjax.train.schedule import schedule


def rates(config: OptimConfig, steps: int, warmup: int = 0) -> list[float]:
    rate = schedule(config, steps=steps, warmup=warmup)
    return [float(rate(step)) for step in range(steps)]


def test_cosine_follows_its_formula() -> None:
    expected = [0.3 * (1 + math.cos(math.pi * t / 10)) / 2 for t in range(10)]
    np.testing.assert_allclose(rates(OptimConfig(lr=0.3), 10), expected, rtol=1e-6)


def test_warmup_rises_in_equal_steps_and_never_is_zero() -> None:
    np.testing.assert_allclose(
        rates(OptimConfig(lr=1.0, schedule="constant"), 6, 4), [0.2, 0.4, 0.6, 0.8, 1, 1], rtol=1e-6
    )


def test_cosine_after_a_warmup_covers_the_remaining_steps() -> None:
    after = rates(OptimConfig(lr=1.0), 14, 4)[4:]
    np.testing.assert_allclose(after, [(1 + math.cos(math.pi * t / 10)) / 2 for t in range(10)], rtol=1e-6)


@pytest.mark.parametrize("warmup", [0, 3])
def test_drops_are_shares_of_the_whole_run(warmup: int) -> None:
    config = OptimConfig(lr=1.0, schedule="step", drops=(0.5, 0.75), drop_factor=0.1)
    after = rates(config, 20, warmup)
    # He et al.: of 64k iterations the rate falls at 32k and 48k; here of 20 at 10 and 15.
    np.testing.assert_allclose(after[warmup:], ([1] * 10 + [0.1] * 5 + [0.01] * 5)[warmup:], rtol=1e-6)


def test_drops_that_fall_together_all_count() -> None:
    config = OptimConfig(lr=1.0, schedule="step", drops=(0.1, 0.2, 0.5), drop_factor=0.1)
    np.testing.assert_allclose(rates(config, 10, 4)[4:], [0.01] + [0.001] * 5, rtol=1e-6)


def test_a_warmup_as_long_as_the_run_is_refused() -> None:
    with pytest.raises(UsageError, match=r"optim\.warmup is 5 steps"):
        schedule(OptimConfig(warmup="5 steps"), steps=5, warmup=5)


PARAMS = {"conv": {"kernel": jnp.array([1.0, -2.0])}, "norm": {"scale": jnp.array([3.0]), "bias": jnp.array([4.0])}}
GRADS = {"conv": {"kernel": jnp.array([0.5, 0.25])}, "norm": {"scale": jnp.array([1.0]), "bias": jnp.array([-1.0])}}


def test_nesterov_momentum_with_decay_by_hand() -> None:
    config = OptimConfig(lr=0.1, momentum=0.9, weight_decay=0.01, schedule="constant")
    transformation = optim.optimizer(config, optax.constant_schedule(0.1))
    params, state = PARAMS, transformation.init(PARAMS)
    expected, velocity = np.array([1.0, -2.0]), np.zeros(2)
    for _ in range(3):
        updates, state = transformation.update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
        gradient = np.array([0.5, 0.25]) + 0.01 * expected
        velocity = 0.9 * velocity + gradient
        expected = expected - 0.1 * (gradient + 0.9 * velocity)
    # Three steps of a few float32 operations each.
    np.testing.assert_allclose(params["conv"]["kernel"], expected, rtol=1e-6)


def test_adamw_decays_kernels_alone_and_apart_from_the_gradient() -> None:
    config = OptimConfig(name="adamw", lr=0.1, weight_decay=0.5)
    transformation = optim.optimizer(config, optax.constant_schedule(0.1))
    updates, _ = transformation.update(GRADS, transformation.init(PARAMS), PARAMS)
    # Adam's first step is the sign of the gradient, but for its epsilon of 1e-8.
    np.testing.assert_allclose(updates["conv"]["kernel"], [-0.1 - 0.05 * 1.0, -0.1 + 0.05 * 2.0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(updates["norm"]["scale"], [-0.1], rtol=1e-5)
    np.testing.assert_allclose(updates["norm"]["bias"], [0.1], rtol=1e-5)


def test_clipping_scales_the_whole_gradient_to_the_norm() -> None:
    config = OptimConfig(lr=1.0, momentum=0.0, weight_decay=0.0, clip_norm=0.1)
    transformation = optim.optimizer(config, optax.constant_schedule(1.0))
    updates, _ = transformation.update(GRADS, transformation.init(PARAMS), PARAMS)
    assert float(optax.tree.norm(updates)) == pytest.approx(0.1, rel=1e-6)
    ratio = np.asarray(updates["conv"]["kernel"]) / np.asarray(GRADS["conv"]["kernel"])
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


def test_each_parameter_must_be_decided_about() -> None:
    assert optim.decay_mask(PARAMS, ("*/kernel",), ("*/bias", "*/scale")) == {
        "conv": {"kernel": True},
        "norm": {"scale": False, "bias": False},
    }
    with pytest.raises(UsageError, match=r"norm/scale matches neither"):
        optim.decay_mask(PARAMS, ("*/kernel",), ("*/bias",))
    with pytest.raises(UsageError, match=r"conv/kernel matches both"):
        optim.decay_mask(PARAMS, ("*",), ("*/kernel", "*/bias", "*/scale"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"schedule": "linear"}, {0: 1.0, 5: 0.5, 9: 0.1}),
        ({"schedule": "linear", "final": 0.2}, {0: 1.0, 5: 0.6}),
        ({"schedule": "polynomial", "power": 2.0}, {0: 1.0, 5: 0.25, 9: 0.01}),
        ({"schedule": "polynomial", "power": 0.5, "final": 0.1}, {0: 1.0, 5: 0.1 + 0.9 * math.sqrt(0.5)}),
        ({"schedule": "cosine", "final": 0.5}, {0: 1.0, 5: 0.75}),
        # Two cosines of five steps each.
        ({"schedule": "cosine", "cycles": 2}, {0: 1.0, 4: (1 + math.cos(0.8 * math.pi)) / 2, 5: 1.0, 9: 0.0954915}),
        # From 1/25 by half a cosine to 1 at step 4, then down to 1/25e4.
        ({"schedule": "onecycle", "rise": 0.4}, {0: 0.04, 2: 0.52, 4: 1.0, 7: 0.5 + 2e-6}),
    ],
)
def test_schedules_at_points_computed_by_hand(fields: dict[str, Any], expected: dict[int, float]) -> None:
    found = rates(OptimConfig(lr=1.0, **fields), 10)
    for step, rate in expected.items():
        assert found[step] == pytest.approx(rate, rel=1e-5)


def test_cycles_after_a_warmup_divide_the_remaining_steps() -> None:
    found = rates(OptimConfig(lr=1.0, cycles=3), 16, 4)
    assert [step for step in range(4, 16) if found[step] == 1.0] == [4, 8, 12]
    with pytest.raises(UsageError, match=r"optim\.cycles is 13: it must be at most 12, the steps after the warm-up"):
        rates(OptimConfig(cycles=13), 16, 4)
