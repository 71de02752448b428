"""A run that is stopped and goes on ends in the same bits as one that was left alone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import pytest
from interrupted import StopsAt, bits

from convjax.data.augment import Augment, HorizontalFlip, RandomCrop
from convjax.data.loader import Kind
from convjax.errors import UsageError
from convjax.inspect.replay import replay
from convjax.train import loop
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig
from convjax.train.evaluate import Evaluator
from convjax.train.interrupts import Interrupted
from convjax.train.run import Run


class Small(nn.Module):
    """A convolution, batch norm, dropout: what must be restored, in a network that compiles quickly."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Conv(8, (3, 3), dtype=self.dtype, name="conv")(images)
        x = nn.BatchNorm(use_running_average=not train, dtype=self.dtype, name="norm")(x)
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
        return nn.Dense(10, dtype=self.dtype, name="head")(x.reshape(x.shape[0], -1))


STEPS = 24


def config(feed: Kind, dtype: Any) -> Config:
    # 719 examples in the train split: an epoch of 11.2 steps.
    return Config(
        model=Small(dtype),
        data=DataConfig("digits", validation=0.5, feed=feed, augment=Augment(RandomCrop(1), HorizontalFlip(0.5))),
        optim=OptimConfig(lr=0.05, warmup="3 steps"),
        train=TrainConfig(
            length=f"{STEPS} steps", batch_size=64, ema=0.9, evaluate_every="10 steps", log_every=3, label_smoothing=0.1
        ),
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind, str], Run]:
    runs: dict[tuple[str, str], Run] = {}

    def train(feed: Kind, dtype: str) -> Run:
        if (feed, dtype) not in runs:
            runs[feed, dtype] = Run(tmp_path_factory.mktemp("runs") / f"{feed}-{dtype}")
            loop.train(config(feed, dtype), runs[feed, dtype])
        return runs[feed, dtype]

    return train


@pytest.mark.parametrize(
    ("feed", "dtype"),
    [
        ("resident", "float32"),
        ("streamed", "bfloat16"),
        pytest.param("resident", "bfloat16", marks=pytest.mark.slow),
        pytest.param("streamed", "float32", marks=pytest.mark.slow),
    ],
)
def test_a_run_stopped_again_and_again_ends_in_the_same_bits(
    undisturbed: Callable[[Kind, str], Run], tmp_path: Path, feed: Kind, dtype: str
) -> None:
    run, stops = Run(tmp_path / "run"), []
    # Looks come after every step, twice after a save, and after every batch of an evaluation.
    for looks in (1, 4, 5, 2, 14, 3):
        try:
            loop.train(config(feed, dtype), run, interrupts=StopsAt(looks))
        except Interrupted as stopped:
            stops.append(stopped.step)
    loop.train(config(feed, dtype), run)
    assert bits(run, STEPS) == bits(undisturbed(feed, dtype), STEPS)
    # In the middle of epochs, before an evaluation, and within it: the same step a second time.
    assert stops == sorted(stops)
    assert len(stops) >= 5
    assert any(step % 10 for step in stops)


def test_a_run_stopped_while_it_evaluates_evaluates_again(
    undisturbed: Callable[[Kind, str], Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, original, calls = Run(tmp_path / "run"), Evaluator.__call__, []

    def evaluate(self: Evaluator, name: str, state: Any, split: Any, after_batch: Any = lambda: None) -> Any:
        calls.append((name, int(state.step)))
        if len(calls) == 1:
            raise KeyboardInterrupt
        return original(self, name, state, split, after_batch)

    monkeypatch.setattr(Evaluator, "__call__", evaluate)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config("resident", "float32"), run)
    loop.train(config("resident", "float32"), run)
    assert calls[:2] == [("validation", 10), ("validation", 10)]
    assert bits(run, STEPS) == bits(undisturbed("resident", "float32"), STEPS)


def test_a_damaged_latest_checkpoint_costs_nothing_but_time(
    undisturbed: Callable[[Kind, str], Run], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path / "run")
    with pytest.raises(Interrupted):
        loop.train(
            config("resident", "float32"), run, interrupts=StopsAt(36)
        )  # after step 13: ten, and two evaluations of twelve batches, come before
    latest, before = sorted((int(p.name) for p in run.checkpoints.iterdir()), reverse=True)
    assert latest % 10, "the last one came by the signal"
    (run.checkpoints / str(latest) / "record" / "metadata").write_text("{}")
    loop.train(config("resident", "float32"), run)
    assert f"checkpoints/{latest}: the checkpoint is damaged" in caplog.text
    assert f"taking the checkpoint of step {before}" in caplog.text
    assert (run.path / "damaged" / str(latest)).is_dir()
    assert bits(run, STEPS) == bits(undisturbed("resident", "float32"), STEPS)


def test_more_checkpoints_and_lines_change_no_number(undisturbed: Callable[[Kind, str], Run], tmp_path: Path) -> None:
    run, plain = Run(tmp_path / "run"), config("resident", "float32")
    often = dataclasses.replace(plain.train, checkpoint_every="4 steps", log_every=1)
    loop.train(dataclasses.replace(plain, train=often), run)
    expected = bits(undisturbed("resident", "float32"), STEPS)
    assert bits(run, STEPS)["arrays"] == expected["arrays"]
    assert bits(run, STEPS)["result"] == expected["result"]
    assert set(expected["metrics"].splitlines()) < set(bits(run, STEPS)["metrics"].splitlines())


@pytest.mark.parametrize(
    ("step", "feed", "dtype"),
    [
        (3, "resident", "float32"),
        (12, "streamed", "float32"),
        (24, "resident", "bfloat16"),
        (12, "streamed", "bfloat16"),
    ],
)
def test_a_replayed_step_is_the_logged_one(
    undisturbed: Callable[[Kind, str], Run], step: int, feed: Kind, dtype: str
) -> None:
    run = undisturbed(feed, dtype)
    found = replay(run, step)
    # The nearest checkpoint before it: of 10 and 20 and 24, those that were kept.
    assert found.begun == max([s for s in map(int, (p.name for p in run.checkpoints.iterdir())) if s < step], default=0)
    line = next(line for line in run.metrics() if line["step"] == step and "train.loss" in line)
    assert {f"train.{name}": value for name, value in found.metrics.items()} == {
        name: value for name, value in line.items() if name != "step"
    }
    assert found.differs() == []


def test_a_replay_shows_gradients_and_activations(undisturbed: Callable[[Kind, str], Run]) -> None:
    found = replay(undisturbed("resident", "float32"), 12)
    assert found.images.shape == (64, 8, 8, 1)
    assert len(found.ids) == len(found.labels) == 64
    # The layers' norms are the parts of the whole gradient's.
    whole = sum(norm**2 for norm in found.gradient_norms.values()) ** 0.5
    assert whole == pytest.approx(found.metrics["gradient_norm"], rel=1e-5)
    assert found.gradient_norms.keys() == {"conv", "norm", "head"}
    assert found.activations.keys() == {"conv", "norm", "Dropout_0", "head", "the model"}
    # The head is the last module: what it returns the model returns.
    assert found.activations["the model"] == found.activations["head"] > 0


def test_a_replay_is_told_from_what_was_logged(undisturbed: Callable[[Kind, str], Run]) -> None:
    found = replay(undisturbed("resident", "float32"), 3)
    assert found.logged is not None
    loss = found.logged["loss"]
    assert loss is not None
    other = dataclasses.replace(found, logged={**found.logged, "loss": loss * (1 + 1e-7)})
    assert other.differs() == ["loss"]
    with pytest.raises(UsageError, match="--step is 25: the run has the steps from 1 to 24"):
        replay(undisturbed("resident", "float32"), 25)
