"""What a model computes from training images before the first step."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

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


def test_the_speed_record_decays_kernels_and_hastens_the_biases_of_norms() -> None:
    config = experiment.load(ROOT / "experiments" / "cifar10_speedrun.py")
    params = count.shapes(config.model, (32, 32, 3))["params"]
    decays = optim.decay_mask(params, config.optim.decay, config.optim.no_decay)
    kernels = {f"group{i}/conv{j}/kernel" for i in (1, 2, 3) for j in (1, 2)}
    assert {name for name, on in zip(patterns.names(params), jax.tree.leaves(decays), strict=True) if on} == {
        *kernels,
        "head/kernel",
    }
    ((pattern, factor),) = (parse_rate("optim.rates", rate) for rate in config.optim.rates)
    hastened = {name for name in patterns.names(params) if patterns.matches(name, [pattern])}
    assert (hastened, factor) == ({f"group{i}/norm{j}/bias" for i in (1, 2, 3) for j in (1, 2)}, 64)
    # 9.9 times 50,000 examples in batches of 1,024.
    assert round(9.9 * 50_000 / 1024) == duration_steps("train.length", config.train.length, 50_000 / 1024) == 483
