"""A loss or gradient that is not finite stops the run, or is left out and counted."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.data import order
from convjax.data.augment import Augment
from convjax.data.loader import Batch
from convjax.data.splits import Normalise
from convjax.errors import RunError, UsageError
from convjax.inspect.replay import replay
from convjax.train import evaluate, failures, loop
from convjax.train import state as states
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig
from convjax.train.optim import optimizer
from convjax.train.run import Run
from convjax.train.schedule import schedule
from convjax.train.step import Step


class Fragile(nn.Module):
    """Fails on images that are white in a corner, as a broken example would make any network fail.

    `what` is the loss or, with a finite loss, the gradient alone.
    """

    what: str = "loss"
    bound: float = 1.9

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Dense(10, name="head")(images.reshape(images.shape[0], -1))
        white = (images[:, 0, 0, 0] > self.bound).any() & train
        if self.what == "loss":
            return x * jnp.where(white, jnp.nan, 1.0)
        # The square root's value at 0 is 0, its slope infinite.
        zero = jnp.where(white, x - jax.lax.stop_gradient(x), 1.0)
        return x + jnp.where(white, jnp.sqrt(jnp.abs(zero)), 0.0)


def make(what: str, ema: float = 0.0) -> tuple[Step, states.TrainState]:
    config = OptimConfig(name="adamw", lr=0.01, schedule="cosine")
    rate = schedule(config, steps=10, warmup=0)
    model = Fragile(what)
    step = Step(model, optimizer(config, rate), rate, Normalise((0.0,), (0.5,)), Augment(), ema=ema)
    return step, states.init(model, step.optimizer, (4, 4, 1), 0, ema=bool(ema))


def batch(white: bool) -> Batch:
    images = np.random.default_rng(0).integers(0, 200, (8, 4, 4, 1)).astype(np.uint8)
    images[3, 0, 0, 0] = 255 if white else 0
    return Batch(jnp.asarray(images), jnp.arange(8, dtype=jnp.int32), jnp.arange(8, dtype=jnp.int32))


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_nothing_of_the_state_changes_but_the_counts(what: str, ema: float) -> None:
    step, state = make(what, ema)
    train = jax.jit(step.train)
    state, good = train(state, batch(white=False))
    after, metrics = train(state, batch(white=True))
    assert math.isfinite(metrics["loss"]) == (what == "gradient")
    assert not math.isfinite(metrics["gradient_norm"])
    assert (int(good["skipped"]), int(metrics["skipped"])) == (0, 1)
    assert (int(after.step), int(after.skipped)) == (2, 1)
    before = state.replace(step=after.step, skipped=after.skipped)
    jax.tree.map(np.testing.assert_array_equal, after, before)
    # The optimizer goes on as if the step had not been: what it did is its own schedule's second step.
    _, third = train(after, batch(white=False))
    assert float(third["learning_rate"]) == pytest.approx(0.01 * (1 + math.cos(math.pi / 10)) / 2)


CONFIG = Config(
    model=Fragile(bound=1.995),
    data=DataConfig("digits", validation=0.1),
    optim=OptimConfig(lr=0.01, schedule="constant"),
    train=TrainConfig(length="20 steps", batch_size=32, evaluate_every="20 steps", log_every=5),
)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> int:
    """Makes one example of the train split white in the corner; returns its id."""
    original = evaluate.load_data

    def load(config: Config) -> Any:
        data = original(config)
        images = np.array(data.splits["train"].images)
        # Normalised, 254 is 1.992 and 255 is 2.
        images[images == 255] = 254
        images[700, 0, 0, 0] = 255
        splits = {**data.splits, "train": dataclasses.replace(data.splits["train"], images=images)}
        info = dataclasses.replace(data.info, normalise=Normalise((0.0,), (0.5,)))
        return dataclasses.replace(data, splits=splits, info=info)

    monkeypatch.setattr("convjax.train.prepare.load_data", load)
    monkeypatch.setattr("convjax.train.evaluate.load_data", load)
    return 700


def step_with(example: int) -> int:
    return next(n for n in range(1, 50) if example in order.batch_ids(0, n - 1, 32, 1293))


def test_the_run_stops_with_step_loss_and_ids_and_nothing_is_overwritten(broken: int, tmp_path: Path) -> None:
    at = step_with(broken)
    config = dataclasses.replace(
        CONFIG, train=dataclasses.replace(CONFIG.train, checkpoint_every="1 steps", length=f"{at + 5} steps")
    )
    run = Run(tmp_path / "run")
    with pytest.raises(RunError, match=f"the loss of step {at} is nan: .*--on-nonfinite skip") as caught:
        loop.train(config, run)
    ids = str(caught.value).partition("Examples of the batch: ")[2].split()
    assert [int(i) for i in ids] == order.batch_ids(0, at - 1, 32, 1293).tolist()
    assert run.latest_step() == at - 1
    assert run.read_json(run.failure.name) == {"error": str(caught.value)}
    # The run's own log ends before; a replay shows the step.
    found = replay(run, at)
    assert found.begun == at - 1
    assert math.isnan(found.metrics["loss"])
    assert broken in found.ids
    # The same command stops again; with the update left out the run goes on.
    with pytest.raises(RunError, match=f"the loss of step {at} is nan"):
        loop.train(config, run)
    skip = dataclasses.replace(config, train=dataclasses.replace(config.train, on_nonfinite="skip"))
    loop.train(skip, run)
    assert not run.failure.exists()
    lines = [line for line in run.metrics() if "train.loss" in line]
    assert [line["step"] for line in lines if line["train.loss"] is None] == [at]
    assert lines[-1]["train.skipped"] == 1
    assert "NaN" not in (run.path / "metrics.jsonl").read_text()


def test_more_than_the_limit_stops(broken: int, tmp_path: Path) -> None:
    at = step_with(broken)
    limited = dataclasses.replace(
        CONFIG.train, on_nonfinite="skip", nonfinite_limit=0, length=f"{at + 2} steps", evaluate_every=f"{at + 2} steps"
    )
    config = dataclasses.replace(CONFIG, train=limited)
    with pytest.raises(RunError, match=f"step {at} is nan.*1 updates would be left out, train.nonfinite_limit is 0"):
        loop.train(config, Run(tmp_path / "run"))


def test_many_ids_are_cut_off(monkeypatch: pytest.MonkeyPatch, broken: int, tmp_path: Path) -> None:
    monkeypatch.setattr(failures, "_IDS_SHOWN", 4)
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, length="50 steps"))
    with pytest.raises(RunError, match=r"Examples of the batch: \d+ \d+ \d+ \d+ \.\.\. \(32 in all\)"):
        loop.train(config, Run(tmp_path / "run"))


def test_a_diverging_run_says_so(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, optim=OptimConfig(lr=1e30, schedule="constant"))
    with pytest.raises(RunError, match=r"the (loss|gradient norm) of step [2-9] is (nan|inf): the training has div"):
        loop.train(config, Run(tmp_path / "run"))


def test_values_are_checked() -> None:
    with pytest.raises(UsageError, match=r"train\.on_nonfinite is 'ignore': it must be one of stop, skip"):
        TrainConfig(on_nonfinite="ignore")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"train\.nonfinite_limit is -1"):
        TrainConfig(nonfinite_limit=-1)


def test_the_lines_of_a_stopped_run_are_json(broken: int, tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG, train=dataclasses.replace(CONFIG.train, on_nonfinite="skip", length="42 steps")
    )
    loop.train(config, Run(tmp_path / "run"))
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert re.search(r'"train.loss": null', (tmp_path / "run" / "metrics.jsonl").read_text())
