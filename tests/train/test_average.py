"""The average of a run's last checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
from real_command import EXPERIMENT, Command, run

from convjax.data import order
from convjax.errors import UsageError
from convjax.train.average import average, recomputed
from convjax.train.evaluate import Trained, load_same_data
from convjax.train.run import Run

STEPS = [25, 30, 35, 40]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that keeps its latest four checkpoints."""
    directory = tmp_path_factory.mktemp("long")
    (directory / "tiny.py").write_text(EXPERIMENT)
    flags = ["--train.length", "40 steps", "--train.checkpoint-every", "5 steps", "--train.keep", "4"]
    done = run("train", directory / "tiny.py", "--workdir", directory / "run", *flags)
    assert done.returncode == 0, done.stderr
    return Run(directory / "run")


def test_so_many_checkpoints_are_kept_besides_the_best(long: Run) -> None:
    accuracies = long.accuracies()
    best = max(accuracies, key=lambda step: (accuracies[step], step))
    assert sorted(int(path.name) for path in long.checkpoints.iterdir()) == sorted({*STEPS, best})


def test_weights_are_the_mean_of_the_checkpoints(long: Run) -> None:
    averaged, steps = average(long, 3)
    assert list(steps) == STEPS[1:]
    states = [Trained.read(long, step).state for step in steps]
    for layer, name in (("dense1", "kernel"), ("head", "bias")):
        mean, *each = (np.asarray(state.params[layer][name], np.float64) for state in (averaged.state, *states))
        np.testing.assert_allclose(mean, sum(each) / 3, rtol=1e-6, atol=1e-9)
        assert np.abs(each[0] - each[2]).max() > 1e-4


def test_statistics_are_those_of_the_training_batches_with_the_averaged_weights(long: Run) -> None:
    averaged, _ = average(long, 4)
    train = load_same_data(averaged.config, averaged.info, long).splits["train"]
    network = recomputed(averaged, train)
    # By hand: the first layer is linear, its norm's statistics are means and biased variances of what it gives.
    flat = np.asarray(train.images, np.float64).reshape(len(train), -1) / 255
    normalise = averaged.info.normalise
    pixels = (flat - normalise.mean[0]) / normalise.std[0]
    kernel = np.asarray(averaged.state.params["dense1"]["kernel"], np.float64)
    given = [pixels[order.batch_ids(0, i, 50, len(train))] @ kernel for i in range(len(train) // 50)]
    found = network.state.batch_stats["norm1"]
    np.testing.assert_allclose(found["mean"], np.mean([x.mean(0) for x in given], axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["var"], np.mean([x.var(0) for x in given], axis=0), rtol=1e-4)
    # Running statistics of training lag behind: they are others.
    assert np.abs(np.asarray(found["var"]) / np.asarray(averaged.state.batch_stats["norm1"]["var"]) - 1).max() > 1e-2


def test_the_command_writes_weights_that_the_others_take(long: Run, convjax: Command, tmp_path: Path) -> None:
    done = convjax("average", long.path, "--last", "3", "-o", tmp_path / "averaged")
    assert done.returncode == 0, done.stderr
    first, *_, test, written = done.stdout.splitlines()
    assert first == "average of the checkpoints of steps 30, 35, 40"
    assert written == f"{tmp_path / 'averaged'}: written"
    evaluated = convjax("eval", tmp_path / "averaged", "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    found = json.loads(evaluated.stdout)
    assert test == f"test accuracy {100 * found['accuracy']:.2f} %, loss {found['loss']:.4f}"
    flags = ["--init-from", tmp_path / "averaged", "--train.length", "3 steps"]
    started = convjax("train", long.path.parent / "tiny.py", "--workdir", tmp_path / "on", *flags)
    assert started.returncode == 0, started.stderr
    assert "(run run, directory" in started.stdout
    assert "checkpoints 30 35 40, statistics recompute)" in started.stdout


@pytest.mark.parametrize(
    ("last", "message"),
    [(5, r"--last is 5, and train\.keep is 4: .* Train with --train\.keep 5"), (9, r"--last is 9, .*--train\.keep 9")],
)
def test_checkpoints_that_were_not_kept(long: Run, last: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        average(long, last)


def test_what_is_no_average_is_not_evaluated(convjax: Command, long: Run, tmp_path: Path) -> None:
    assert convjax("average", long.path, "-o", long.path).returncode == 2
    done = convjax("average", long.path, "--last", "5", "-o", tmp_path / "never")
    assert done.returncode == 2
    assert "so many of the latest checkpoints have not been kept" in done.stderr
    assert not (tmp_path / "never").exists()
