"""What a model computes from training images before the first step."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax import ops
from convjax.data.splits import Normalise
from convjax.inspect import count
from convjax.models import MLP, AirBench
from convjax.train import experiment, optim, patterns
from convjax.train.config import Config, DataConfig, TrainConfig, duration_steps
from convjax.train.from_images import computed
from convjax.train.prepare import prepare
from convjax.train.run import Run
from convjax.train.values import parse_rate

ROOT = Path(__file__).parents[2]
CONFIG = Config(AirBench(stage_widths=(4, 4), batch_epsilon=1e-5), data=DataConfig("digits", validation=0.0))


def test_a_run_starts_with_a_kernel_that_whitens_its_training_images(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, train=TrainConfig(length="1 steps", ema=0.9))
    prepared = prepare(config, Run(tmp_path / "run"), None)
    state = prepared.initial(config)
    images = prepared.step.normalise(jnp.asarray(np.asarray(prepared.data.splits["train"].images)))
    seen = np.asarray(ops.conv2d(images, state.params["whiten"]["kernel"], padding="VALID")).reshape(-1, 8)[:, :4]
    # By 5e-4 less than one in a direction of variance one; that of the faintest is 0.08.
    np.testing.assert_allclose(seen.T @ seen / len(seen), np.eye(4), atol=0.01)
    np.testing.assert_array_equal(state.ema["params"]["whiten"]["kernel"], state.params["whiten"]["kernel"])


def test_the_images_are_the_first_of_the_run_and_depend_on_the_seed(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, model=AirBench(stage_widths=(4, 4), whitening_images=50))
    train = prepare(config, Run(tmp_path / "run"), None).data.splits["train"]
    plain = Normalise((0.5,), (0.25,))
    kernels = [computed(dataclasses.replace(config, seed=seed), train, plain) for seed in (0, 0, 1)]
    one, again, other = (kernel["params/whiten/kernel"] for kernel in kernels)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_who_asks_for_no_images_computes_nothing() -> None:
    for model in (MLP(), AirBench(whitening_images=0)):
        assert computed(dataclasses.replace(CONFIG, model=model), None, Normalise((0.5,), (0.25,))) == {}  # type: ignore[arg-type]


def test_the_speed_record_has_the_rates_and_decays_of_the_original() -> None:
    """Jordan's airbench94_muon: its figures are for the sum over 2,000 examples, and a head of deviation 1 over 256."""
    config = experiment.load(ROOT / "experiments" / "cifar10_speedrun.py")
    params = count.shapes(config.model, (32, 32, 3))["params"]
    names = patterns.names(params)
    decays = optim.decay_mask(params, config.optim.decay, config.optim.no_decay)
    biases = {"whiten/bias", *(f"group{i}/norm{j}/bias" for i in (1, 2, 3) for j in (1, 2))}
    assert {name for name, on in zip(names, jax.tree.leaves(decays), strict=True) if on} == {*biases, "head/kernel"}
    kernels = {f"group{i}/conv{j}/kernel" for i in (1, 2, 3) for j in (1, 2)}
    assert {name for name in names if patterns.matches(name, config.optim.muon)} == kernels
    assert set(names) == {*biases, *kernels, "head/kernel", "whiten/kernel"}
    rates = {pattern: config.optim.lr * rate for pattern, rate in (parse_rate("", rate) for rate in config.optim.rates)}
    # A network is the same with its head times r and its logits over r, and learns alike at r * r times the rate.
    uniform = 1 / (16 * 3**0.5)  # deviation of what PyTorch and convjax draw for 256 inputs
    assert config.model.logit_scale * uniform == pytest.approx(1 / 256)
    assert rates == pytest.approx({"*/bias": 0.053 * 2000, "head/kernel": 0.67 * 2000 * uniform**2})
    assert config.optim.lr * config.optim.weight_decay == pytest.approx(2e-6 * 2000)
    assert not config.optim.decay_by_rates
    assert duration_steps("train.length", config.train.length, 50_000 / config.train.batch_size) == 8 * 25


def test_the_whitening_bias_may_start_within_the_bound_of_its_fan_in() -> None:
    def bias(start: Literal["zeros", "uniform"]) -> Any:
        model = AirBench(stage_widths=(4,), whitening_bias=start)
        return np.asarray(
            model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)["params"]["whiten"]["bias"]
        )

    assert not bias("zeros").any()
    # 24 draws; the largest is below 0.8 of the bound 12 ** -0.5 with a probability of 0.5 %.
    assert 0.8 * 12**-0.5 < np.abs(bias("uniform")).max() < 12**-0.5
    assert bias("uniform").min() < 0 < bias("uniform").max()
