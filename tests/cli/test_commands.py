import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_command import ROOT, Command

from convjax.data import sources


def test_train_ends_with_the_test_accuracy_and_plain_lines(convjax: Command, experiment: Path, tmp_path: Path) -> None:
    done = convjax("train", experiment, "--workdir", tmp_path / "run", "--optim.lr", "0.05", "--model.hidden", "8", "4")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"test accuracy \d{1,3}\.\d\d %", lines[-1])
    assert str(tmp_path / "run") in lines[-2]
    assert "\x1b" not in done.stdout
    assert sum("validation: loss" in line for line in lines) == 2
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["optim"]["lr"], config["model"]["hidden"]) == (0.05, [8, 4])
    assert (tmp_path / "run" / "experiment.py").read_text() == experiment.read_text()

    again = convjax(
        "train", experiment, "--workdir", tmp_path / "run", "--optim.lr", "0.05", "--model.hidden", "8", "4"
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == lines[-1]


def test_an_experiment_runs_as_a_script_with_the_same_flags(tmp_path: Path) -> None:
    flags = ["--workdir", "run", "--train.length", "25 steps", "--train.log-every", "1"]
    script = [sys.executable, str(ROOT / "experiments" / "digits.py"), *flags]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 26


def test_another_model_is_taken_by_name(convjax: Command, experiment: Path, tmp_path: Path) -> None:
    flags = ["--model", "lenet5", "--model.pool", "max", "--train.length", "1 steps"]
    done = convjax("train", experiment, "--workdir", tmp_path / "run", *flags)
    assert done.returncode == 0, done.stderr
    model = json.loads((tmp_path / "run" / "config.json").read_text())["model"]
    assert (model["type"], model["pool"], model["num_classes"]) == ("convjax.models.lenet:LeNet5", "max", 10)


def test_a_model_may_be_defined_in_the_experiment_file(convjax: Command, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import flax.linen as nn\nfrom convjax.train.config import Config, TrainConfig\n\n"
        "class Linear(nn.Module):\n    units: int = 4\n    @nn.compact\n    def __call__(self, images, *, train):\n"
        "        return nn.Dense(10)(nn.Dense(self.units)(images.reshape(images.shape[0], -1)))\n\n"
        "config = Config(model=Linear(), train=TrainConfig(length='2 steps'))\n"
    )
    done = convjax("train", "own.py", "--model.units", "6", "--workdir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "own.py").unlink()
    done = convjax("eval", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == 360


def test_eval_prints_one_json_object(convjax: Command, trained: Path) -> None:
    done = convjax("eval", trained, "--json")
    assert done.returncode == 0, done.stderr
    keys = {"split", "examples", "loss", "accuracy", "top5", "calibration_error", "per_class", "confusion"}
    evaluation = json.loads(done.stdout)
    assert set(evaluation) == keys
    result = json.loads((trained / "result.json").read_text())
    assert evaluation == result["test"]


@pytest.mark.parametrize(("split", "examples"), [("train", 1293), ("validation", 144), ("test", 360)])
def test_eval_scores_any_split_and_checkpoint(convjax: Command, trained: Path, split: str, examples: int) -> None:
    done = convjax("eval", trained, "--split", split, "--checkpoint", "10")
    assert done.returncode == 0, done.stderr
    assert f"{split} split, {examples} examples, checkpoint of step 10" in done.stdout
    assert "accuracy" in done.stdout
    assert done.stderr == ""


def test_predict_names_the_likeliest_classes_of_real_files(convjax: Command, trained: Path, tmp_path: Path) -> None:
    split = sources.load("digits").test
    Image.fromarray(split.images[0, ..., 0]).save(tmp_path / "grey.png")
    # The same picture, enlarged and in colour: resizing by a whole number and back keeps the class.
    Image.fromarray(np.repeat(split.images[0], 3, axis=-1)).resize((64, 64)).save(tmp_path / "[colour].jpg")
    done = convjax("predict", trained, tmp_path / "grey.png", tmp_path / "[colour].jpg")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if ".png" in line or ".jpg" in line] == [
        str(tmp_path / "grey.png"),
        str(tmp_path / "[colour].jpg"),
    ]
    shares = [float(line.split("%")[0]) for line in lines if "%" in line]
    assert len(shares) == 10
    assert shares[:5] == sorted(shares[:5], reverse=True)
    assert 0 < sum(shares[:5]) <= 100.05
    assert lines[1].split()[-1] == lines[7].split()[-1]


def test_models_lists_published_counts(convjax: Command) -> None:
    done = convjax("models")
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["resnet50"])
    # torchvision's documentation: 25,557,032 parameters, 4.09 GFLOPS in its count of multiply-accumulates.
    assert "25,557,032" in row
    assert "4,089.2 M" in row
    assert "1512.03385" in row


def test_summary_lists_the_layers_of_a_named_model(convjax: Command) -> None:
    done = convjax("summary", "resnet50")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    # The paper's table 1: 3, 4, 6 and 3 blocks, the last of 2048 channels at 7 x 7 pixels.
    assert sum("BottleneckBlock" in line for line in lines) == 16
    assert lines[-3].split()[:9] == ["stage4_block3", "BottleneckBlock", "1", "x", "7", "x", "7", "x", "2048"]
    assert lines[-1].split()[:3] == ["total", "25,557,032", "4,089,184,256"]


def test_summary_takes_experiments_with_their_flags_and_runs(convjax: Command, experiment: Path, trained: Path) -> None:
    flags = ("--model.hidden", "32", "--batch", "2", "--depth", "0", "--json")
    done = convjax("summary", experiment, *flags)
    assert done.returncode == 0, done.stderr
    # 64 pixels, 32 units with a norm, 10 classes.
    found = json.loads(done.stdout)
    assert found["parameters"] == 64 * 32 + 2 * 32 + 32 * 10 + 10
    assert found["multiply_accumulates"] == 2 * (64 * 32 + 32 * 10)
    assert [layer["kind"] for layer in found["layers"]] == ["MLP"]
    done = convjax("summary", trained, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"] == 64 * 16 + 2 * 16 + 16 * 10 + 10


def test_data_describes_and_draws(convjax: Command, tmp_path: Path) -> None:
    done = convjax("data", "digits", "--examples", "20", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "10 classes, images 8 x 8 x 1" in done.stdout
    assert done.stdout.splitlines()[-2].split() == ["all", "1293", "144", "360"]
    with Image.open(tmp_path / "digits.png") as sheet:
        assert sheet.width > 10 * 64


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["eval", "-h"], ["predict", "-h"], ["data", "-h"]]
)
def test_help_is_help(convjax: Command, arguments: list[str]) -> None:
    done = convjax(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: convjax" in done.stdout


def test_help_of_an_experiment_lists_its_fields_with_their_values(convjax: Command, experiment: Path) -> None:
    done = convjax("train", experiment, "--help", COLUMNS="120")
    assert done.returncode == 0
    for flag in ("--workdir", "--model.hidden", "--optim.lr", "--data.augment.crop.padding", "--train.batch-size"):
        assert flag in done.stdout
    assert "Highest learning rate." in done.stdout
