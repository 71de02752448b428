"""Several seeds trained as one program: the same runs as one after the other, up to float32 rounding."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import pytest
from interrupted import StopsAt, bits
from small_models import leaves

from convjax.data.augment import Augment, HorizontalFlip, RandomCrop
from convjax.errors import RunError, UsageError
from convjax.inspect.replay import replay
from convjax.train import loop, together
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig
from convjax.train.evaluate import Trained
from convjax.train.interrupts import Interrupted
from convjax.train.result import Result
from convjax.train.run import Run

SEEDS = (3, 0, 2**32 - 1)
STEPS = 24


class Small(nn.Module):
    """A convolution, batch norm, dropout; smooth, since rounding decides on which side of a kink a number lies.

    It has no bias that the norm takes away again: the gradient of that is rounding and nothing else.
    Its logits are nowhere finite where the drawn sign is not that of `sign`.
    """

    sign: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Conv(8, (3, 3), use_bias=False, name="conv")(images)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Dropout(0.2, deterministic=not train)(nn.silu(x))
        drawn = self.param("bias", nn.initializers.normal(), ())
        scale = jax.numpy.where(self.sign * drawn < 0, jax.numpy.inf, 1.0)
        return nn.Dense(10, name="head")(x.reshape(x.shape[0], -1)) * scale


CONFIG = Config(
    model=Small(),
    data=DataConfig("digits", validation=0.5, augment=Augment(RandomCrop(1), HorizontalFlip(0.5))),
    optim=OptimConfig(lr=0.05, warmup="3 steps"),
    train=TrainConfig(length=f"{STEPS} steps", batch_size=64, ema=0.9, evaluate_every="10 steps", log_every=3),
)


class Trainings(NamedTuple):
    """The same seeds, apart and together."""

    apart: dict[int, Run]
    together: dict[int, Run]
    ends: dict[int, together.End]


def runs(directory: Path, seeds: tuple[int, ...] = SEEDS) -> dict[int, Run]:
    return {seed: Run(directory / str(seed)) for seed in seeds}


def with_seed(seed: int, config: Config = CONFIG) -> Config:
    return dataclasses.replace(config, seed=seed)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    directory = tmp_path_factory.mktemp("runs")
    found = Trainings(runs(directory / "apart"), runs(directory / "together"), {})
    for seed, run in found.apart.items():
        loop.train(with_seed(seed), run)
    return found._replace(ends=together.train(CONFIG, found.together))


def files(run: Run) -> set[str]:
    """The names of a run's files, but for arrays' own and those with a time in their name."""
    found = (path.relative_to(run.path) for path in run.path.rglob("*") if path.is_file())
    return {str(path) for path in found if not {"d", "ocdbt.process_0", "tensorboard"} & set(path.parts)}


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_each_run_is_that_which_is_trained_alone(trained: Trainings) -> None:
    worst = {"state": 0.0, "metrics": 0.0}
    for seed in SEEDS:
        alone, beside = trained.apart[seed], trained.together[seed]
        before, after = (leaves(Trained.read(run, STEPS).state) for run in (alone, beside))
        assert before.keys() == after.keys()
        for name, array in before.items():
            difference = np.abs(np.float64(array) - np.float64(after[name])).max()
            worst["state"] = max(worst["state"], float(difference / (np.abs(np.float64(array)).max() or 1)))
        for one, other in zip(lines(alone), lines(beside), strict=True):
            assert one.keys() == other.keys()
            assert one["step"] == other["step"]
            for name, value in one.items():
                worst["metrics"] = max(worst["metrics"], abs(value - other[name]) / max(abs(value), 1))
        result = trained.ends[seed]
        assert isinstance(result, Result)
        assert result == Result.from_json(json.loads(beside.result.read_text()))
    # A float32 sum of n terms in another order differs by sqrt(n) 6e-8 or so of its largest; here n is up to 4,096,
    # 64 images of 64 pixels, which makes 4e-6; 6e-7 was found.
    assert worst["state"] < 5e-6
    assert worst["metrics"] < 5e-6


def test_the_files_are_those_of_a_run_that_is_trained_alone(trained: Trainings) -> None:
    for seed in SEEDS:
        alone, beside = trained.apart[seed], trained.together[seed]
        assert files(beside) == files(alone)
        for name in ("config.json", "data.json"):
            assert (beside.path / name).read_bytes() == (alone.path / name).read_bytes()
        assert len(list((beside.path / "tensorboard").iterdir())) == 1
        told = [json.loads((run.path / "environment.json").read_text()) for run in (alone, beside)]
        assert [environment["seeds_at_once"] for environment in told] == [[], list(SEEDS)]


def test_seeds_have_runs_of_their_own(trained: Trainings) -> None:
    losses = [lines(run)[0]["train.loss"] for run in trained.together.values()]
    assert len(set(losses)) == len(SEEDS)


def test_runs_that_are_stopped_go_on_to_the_same_bits(trained: Trainings, tmp_path: Path) -> None:
    again, stops = runs(tmp_path), []
    # The first stops between two steps, at different ones in different runs; the others early and in an evaluation.
    for looks in (16, 4, 36):
        ends = together.train(CONFIG, again, interrupts=StopsAt(looks))
        assert all(isinstance(end, Interrupted) for end in ends.values())
        stops.append({end.step for end in ends.values() if isinstance(end, Interrupted)})
    assert any(len(steps) > 1 for steps in stops), stops
    ends = together.train(CONFIG, again)
    for seed in SEEDS:
        assert ends[seed] == trained.ends[seed]
        assert bits(again[seed], STEPS) == bits(trained.together[seed], STEPS)


def test_a_step_is_replayed_to_the_same_bits(trained: Trainings) -> None:
    found = replay(trained.together[SEEDS[1]], 15)
    assert found.begun == 10
    assert found.logged is not None
    assert not found.differs()


def test_a_seed_that_diverges_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    fragile = dataclasses.replace(
        CONFIG, model=Small(sign=1.0), train=dataclasses.replace(CONFIG.train, length="4 steps", log_every=1)
    )
    seeds = (0, 1, 2, 3)
    made = runs(tmp_path, seeds)
    ends = together.train(fragile, made)
    failed = [seed for seed, end in ends.items() if isinstance(end, RunError)]
    assert 0 < len(failed) < len(seeds)
    for seed in failed:
        with pytest.raises(RunError) as alone:
            loop.train(with_seed(seed, fragile), Run(tmp_path / f"alone-{seed}"))
        assert str(ends[seed]) == str(alone.value)
        assert json.loads(made[seed].failure.read_text()) == {"error": str(alone.value)}
        assert not made[seed].result.exists()
    for seed in set(seeds) - set(failed):
        assert isinstance(ends[seed], Result)
        assert [line["step"] for line in lines(made[seed])] == [1, 2, 3, 4, 4]
        assert not made[seed].failure.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": DataConfig("digits", feed="streamed")}, "data.feed is 'streamed': it must be resident"),
        ({"train": TrainConfig(sizes=(6, 8), sizes_at=(0.5,))}, r"train.sizes_at is \(0.5,\): it must be empty"),
    ],
)
def test_what_cannot_be_trained_at_once_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        together.train(dataclasses.replace(CONFIG, **changes), runs(tmp_path))
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_where_one_directory_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"seed 0: .*holds no run"):
        together.train(CONFIG, runs(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
