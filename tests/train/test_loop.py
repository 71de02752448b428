import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.loader import Batch, Resident
from convjax.digest import digest
from convjax.errors import RunError, UsageError
from convjax.models import MLP, CifarResNet, ResNet
from convjax.train import loop
from convjax.train import state as states
from convjax.train.checkpoint import Checkpoints
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig
from convjax.train.evaluate import Evaluator, Trained, build, load_data
from convjax.train.log import Mark
from convjax.train.parallel import Placement
from convjax.train.plan import Plan
from convjax.train.result import Result
from convjax.train.run import Run

CONFIG = Config(
    model=MLP(hidden=(16,)),
    data=DataConfig("digits", augment=Augment(flip=HorizontalFlip(0.5))),
    optim=OptimConfig(lr=0.05, warmup="2 steps"),
    train=TrainConfig(length="30 steps", batch_size=50, evaluate_every="8 steps", log_every=5),
)


LOG = Mark(0, digest(b""))


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Result]:
    run = Run(tmp_path_factory.mktemp("run") / "run")
    return run, loop.train(CONFIG, run)


def test_metrics_come_at_their_steps(trained: tuple[Run, Result]) -> None:
    steps = {
        name: [line["step"] for line in lines(trained[0]) if f"{name}.loss" in line] for name in ("train", "validation")
    }
    assert steps == {"train": [5, 10, 15, 20, 25, 30], "validation": [8, 16, 24, 30]}
    assert lines(trained[0]) == sorted(lines(trained[0]), key=lambda line: line["step"])


def test_tensorboard_reads_the_same_numbers(trained: tuple[Run, Result]) -> None:
    events = EventAccumulator(str(trained[0].path / "tensorboard"))
    events.Reload()
    for name in ("train.loss", "train.learning_rate", "validation.accuracy"):
        expected = [(line["step"], np.float32(line[name])) for line in lines(trained[0]) if name in line]
        assert [(e.step, np.float32(e.value)) for e in events.Scalars(name.replace(".", "/"))] == expected


def test_the_latest_two_checkpoints_and_the_best_are_kept(trained: tuple[Run, Result]) -> None:
    run, result = trained
    accuracy = {line["step"]: line["validation.accuracy"] for line in lines(run) if "validation.accuracy" in line}
    best = max(accuracy, key=lambda step: (accuracy[step], step))
    assert result.checkpoint == best
    assert {int(p.name) for p in run.checkpoints.iterdir()} == {24, 30, best}


def test_the_best_is_kept_however_old_it_becomes(tmp_path: Path) -> None:
    data = load_data(CONFIG)
    step, _ = build(CONFIG, data.info, Placement.single())
    accuracies: dict[int, float] = {}
    with Checkpoints(tmp_path / "c", accuracies) as checkpoints:
        state = states.init(CONFIG.model, step.optimizer, data.info.image, 0)
        for number, accuracy in enumerate([0.2, 0.9, 0.3, 0.4, 0.9, 0.5, 0.6], start=1):
            checkpoints.save(state.replace(step=np.int32(number)), LOG)
            accuracies[number] = accuracy
    with Checkpoints(tmp_path / "c", accuracies, read_only=True) as checkpoints:
        # Of equals the later one: it has been trained for longer.
        assert checkpoints.candidates("best") == [5, 7, 6]
        assert checkpoints.candidates("latest") == [7, 6, 5]
        assert checkpoints.candidates(6) == [6]
        with pytest.raises(UsageError, match=r"no checkpoint of step 2, only of \[5, 6, 7\]"):
            checkpoints.candidates(2)


def test_the_result_is_that_of_the_chosen_checkpoint(trained: tuple[Run, Result]) -> None:
    run, result = trained
    network = Trained.read(run, "best")
    assert network.checkpoint == result.checkpoint
    assert network.evaluate("test", load_data(CONFIG).splits["test"]) == result.test
    assert json.loads((run.path / "result.json").read_text()) == json.loads(json.dumps(dataclasses.asdict(result)))


def test_a_run_goes_on_where_it_stopped(
    tmp_path: Path, trained: tuple[Run, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, original = Run(tmp_path / "run"), Checkpoints.save
    saved = []

    def save_and_fail(self: Checkpoints, state: Any, log: Mark) -> None:
        original(self, state, log)
        saved.append(int(state.step))
        if saved == [8, 16]:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_and_fail)
    with pytest.raises(KeyboardInterrupt):
        loop.train(CONFIG, run)
    # A step that was logged after the last checkpoint, and a line that was cut off in writing.
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "train.loss": 1.0}\n{"step": 2')
    result = loop.train(CONFIG, run)
    assert saved == [8, 16, 24, 30]
    assert lines(run) == lines(trained[0])
    assert result == trained[1]


def test_a_finished_run_is_not_trained_again(
    tmp_path: Path, trained: tuple[Run, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_train", lambda *_: pytest.fail("trained again"))
    assert loop.train(CONFIG, trained[0]) == trained[1]


def test_without_a_validation_split_the_latest_checkpoint_counts(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, data=DataConfig("digits", validation=0.0))
    result = loop.train(config, Run(tmp_path / "run"))
    assert result.checkpoint == 30
    assert result.validation is None
    assert not any("validation.loss" in line for line in lines(Run(tmp_path / "run")))


@pytest.mark.parametrize("batch_size", [1000, 360, 7, 1])
def test_each_example_is_scored_once_whatever_the_batch_size(batch_size: int, trained: tuple[Run, Result]) -> None:
    network = Trained.read(trained[0], "latest")
    split = load_data(CONFIG).splits["test"]
    evaluator = Evaluator(network.step, network.info.class_names, batch_size, network.placement)
    evaluation = evaluator("test", network.state, Resident(split, network.placement))
    whole = network.step.evaluate(
        network.state, Batch(jnp.asarray(split.images), jnp.asarray(split.labels), jnp.arange(360))
    )
    assert evaluation.examples == 360
    assert np.sum(evaluation.confusion) == 360
    assert evaluation.accuracy == np.mean(np.asarray(whole.rank) == 0)
    assert evaluation.loss == pytest.approx(np.mean(np.asarray(whole.loss), dtype=np.float64), rel=1e-5)


def test_no_evaluation_comes_close_before_the_last() -> None:
    plan = Plan(steps=2672, warmup=0, evaluate_every=445)
    assert [step for step in range(1, 2673) if plan.evaluates_after(step)] == [445, 890, 1335, 1780, 2225, 2672]
    assert [s for s in range(1, 31) if Plan(30, 0, 8).evaluates_after(s)] == [8, 16, 24, 30]
    assert [s for s in range(1, 4) if Plan(3, 0, 10).evaluates_after(s)] == [3]


def test_epochs_are_counted_in_examples() -> None:
    info = load_data(CONFIG).info
    config = dataclasses.replace(
        CONFIG, train=TrainConfig(length="10 epochs", batch_size=64, evaluate_every="1 epochs")
    )
    # 1,293 training examples: 20.2 steps of 64 an epoch.
    assert Plan.of(config, info) == Plan(steps=202, warmup=2, evaluate_every=20)


class Own(nn.Module):
    """A user's model, which need not name its number of classes."""

    units: int = 10
    fails: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        if self.fails and train:
            raise TypeError("the author's mistake")
        return nn.Dense(self.units)(images.reshape(images.shape[0], -1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": Own(units=9)}, r"logits of shape \(50, 9\): data set 'digits' has 10 classes"),
        ({"model": Own(fails=True)}, r"test_loop\.py:\d+: TypeError: the author's mistake"),
        ({"data": DataConfig("digits", validation=0.9999)}, r"leaves 0 for training"),
        ({"data": DataConfig("digits", validation=0.0001)}, r"and 0 for validation"),
        ({"model": MLP(num_classes=7)}, "model.num_classes is 7: data set 'digits' has 10 classes"),
        ({"model": ResNet()}, "set model.stem to cifar"),
        ({"model": CifarResNet(depth=21)}, "model.depth is 21"),
        ({"train": TrainConfig(batch_size=1294)}, "train.batch_size is 1294: it must be at most 1293"),
        ({"optim": OptimConfig(no_decay=())}, "matches neither of optim.decay and optim.no_decay"),
    ],
)
def test_nothing_is_written_where_the_configuration_is_wrong(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        loop.train(dataclasses.replace(CONFIG, **changes), Run(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path, trained: tuple[Run, Result]) -> None:
    shutil.copytree(trained[0].path, tmp_path / "run")
    content = json.loads((tmp_path / "run" / "data.json").read_text())
    (tmp_path / "run" / "data.json").write_text(json.dumps(content | {"version": "0.9.0"}))
    with pytest.raises(UsageError, match=r"was trained on other data than digits 1\.0\.0"):
        loop.train(CONFIG, Run(tmp_path / "run"))


def test_a_diverging_run_stops_with_the_step(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, optim=OptimConfig(lr=1e30, schedule="constant"))
    with pytest.raises(RunError, match=r"the loss of step [2-9] is (nan|inf): the training has diverged"):
        loop.train(config, Run(tmp_path / "run"))


def test_a_checkpoint_of_another_network_is_refused_by_the_parameters_path(trained: tuple[Run, Result]) -> None:
    _, wider = build(dataclasses.replace(CONFIG, model=MLP(hidden=(17,))), load_data(CONFIG).info, Placement.single())
    _, same = build(CONFIG, load_data(CONFIG).info, Placement.single())
    half = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, jnp.bfloat16, sharding=s.sharding), same)
    with Checkpoints(trained[0].checkpoints, {}, read_only=True) as checkpoints:
        with pytest.raises(RunError, match=r"batch_stats/norm1/mean is float32\[16\] there and float32\[17\] in this"):
            checkpoints.restore("latest", wider)
        # Orbax would cast it silently.
        with pytest.raises(RunError, match=r"checkpoints/30: .* float32\[16\] there and bfloat16\[16\] in this"):
            checkpoints.restore(30, half)


def test_a_save_reads_the_state_it_was_given_even_if_the_next_step_donates_it(tmp_path: Path) -> None:
    data = load_data(CONFIG)
    step, shapes = build(CONFIG, data.info, Placement.single())
    state = states.init(CONFIG.model, step.optimizer, data.info.image, 0)
    expected = jax.tree.map(np.array, state)
    overwrite = jax.jit(lambda s: jax.tree.map(lambda a: a * 0 + 7, s), donate_argnums=0)
    with Checkpoints(tmp_path / "c", {}) as checkpoints:
        checkpoints.save(state, LOG)
        overwrite(state)
        checkpoints.wait()
        restored = checkpoints.restore(0, shapes).state
    jax.tree.map(np.testing.assert_array_equal, restored, expected)
