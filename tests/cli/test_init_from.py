"""Training from existing weights, by the real command."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from real_command import Command

from convjax.data.images import Crop
from convjax.data.splits import Normalise
from convjax.models import CifarResNet
from convjax.train.evaluate import Trained
from convjax.train.run import Run
from convjax.train.weights import Weights

OWN = """
import flax.linen as nn
from convjax.train.config import Config, OptimConfig, TrainConfig

class Net(nn.Module):
    {field}: int = 8

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.relu(nn.Dense(8, name="body")(images.reshape(images.shape[0], -1)))
        return nn.Dense(10, name="head")(x)

config = Config(
    model=Net(),
    optim=OptimConfig(schedule="constant"),
    train=TrainConfig(length="4 steps", batch_size=50, evaluate_every="4 steps"),
)
"""


def test_a_run_goes_on_in_another_with_a_frozen_part(
    convjax: Command, experiment: Path, trained: Path, tmp_path: Path
) -> None:
    flags = ["--init-from", trained, "--optim.freeze", "dense1/*", "norm1/*", "--optim.rates", "head/bias=0.1"]
    done = convjax("train", experiment, "--workdir", "run", "--train.ema", "0.9", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    before, after = (Trained.read(Run(path), "best") for path in (trained, tmp_path / "run"))
    # Two kernels, the bias of the last one, scale and bias of the norm, its mean and its variance.
    assert lines[0].startswith(f"starts from 7 arrays of {trained} (run tiny, checkpoint {before.checkpoint}), digest ")
    # 64 pixels to 16 units, with scale and bias; 10 classes.
    assert lines[1] == f"frozen: {66 * 16:,} of {66 * 16 + 170:,} parameters, 1 of 1 batch norms on stored statistics"
    assert lines[2] == "learning rate times 0.1: 10 parameters (head/bias)"
    evaluated: list[Any] = [jax.device_get(read.state.evaluated()) for read in (before, after)]
    for part in ("dense1", "norm1"):
        jax.tree.map(np.testing.assert_array_equal, *(tree["params"][part] for tree in evaluated))
    jax.tree.map(np.testing.assert_array_equal, *(tree["batch_stats"] for tree in evaluated))
    assert (evaluated[0]["params"]["head"]["kernel"] != evaluated[1]["params"]["head"]["kernel"]).all()
    done = convjax("diff", trained, tmp_path / "run", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    row = next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["digest"])
    assert row == ["digest", "absent", json.loads((tmp_path / "run" / "init.json").read_text())["digest"]]


def test_weights_get_a_new_head_and_a_grey_stem(convjax: Command, experiment: Path, tmp_path: Path) -> None:
    model = CifarResNet(depth=8, width=4, num_classes=7)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 8, 8, 3)), train=False))
    imagenet = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, np.float32), shapes)
    Weights(model, (8, 8, 3), tuple("abcdefg"), imagenet, Crop(), {"file": "x"}, variables).write(tmp_path / "w")
    flags = ["--model", "resnet20", "--model.depth", "8", "--model.width", "4", "--train.length", "1 steps"]
    done = convjax("train", experiment, "--workdir", "run", "--init-from", "w", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1] == "  new: params/head/dense/bias, params/head/dense/kernel"
    assert lines[2] == "  other input channels: params/stem/conv/kernel"
    normalise = json.loads((tmp_path / "run" / "data.json").read_text())["normalise"]
    assert normalise["mean"] == pytest.approx([(0.485 + 0.456 + 0.406) / 3])


def test_runs_of_networks_of_ones_own_start_from_each_other(convjax: Command, tmp_path: Path) -> None:
    """Both files define a class of one name, with other fields."""
    for name in ("first", "second"):
        (tmp_path / f"{name}.py").write_text(OWN.format(field=name))
    done = convjax("train", "first.py", "--workdir", "a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = convjax("train", "second.py", "--workdir", "b", "--init-from", "a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "model.first is 'absent', it was 8" in done.stdout
    # To more steps: the configuration of the run is read again, after that of the weights.
    more = ["--init-from", "a", "--train.length", "8 steps"]
    done = convjax("train", "second.py", "--workdir", "b", *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on from step 4 of 8" in done.stdout


@pytest.mark.parametrize(
    ("flags", "code", "parts"),
    [
        (["--init-from", "damaged"], 1, ["train.init_from is damaged: damaged is damaged"]),
        (["--optim.freeze", "dense2/*"], 2, ["optim.freeze has 'dense2/*'", "nearest are dense1/kernel"]),
        (["--optim.rates", "head/*=fast"], 2, ["a value of optim.rates is 'head/*=fast'", "a pattern and a factor"]),
    ],
)
def test_what_is_wrong_is_named_and_leaves_nothing_behind(
    convjax: Command, experiment: Path, tmp_path: Path, flags: list[str], code: int, parts: list[str]
) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "weights.json").write_text("{}")
    done = convjax("train", experiment, "--workdir", "run", *flags, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    flat = " ".join(done.stderr.replace("│", " ").split())
    for part in parts:
        assert part in flat, done.stderr
    assert not (tmp_path / "run").exists()
