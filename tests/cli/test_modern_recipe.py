"""A modern recipe from the command line: trained, evaluated over views, looked at; and what is refused."""

import json
from pathlib import Path

import pytest
from PIL import Image
from real_command import Command

RECIPE = [
    *("--data.augment.trivial.probability", "1", "--data.augment.mix.mixup", "0.2", "--data.augment.mix.cutmix", "1"),
    *("--data.augment.erasing.probability", "0.5", "--data.augment.repeats", "2", "--train.loss-function", "sigmoid"),
    *("--optim.name", "schedule_free_adamw", "--optim.schedule", "constant", "--optim.lr", "0.01"),
]


def test_a_recipe_is_trained_and_evaluated_over_views(convjax: Command, experiment: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = convjax("train", experiment, "--workdir", run, *RECIPE)
    assert done.returncode == 0, done.stderr
    found = {}
    for views in ("plain", "flip"):
        told = convjax("eval", run, "--views", views, "--json")
        assert told.returncode == 0, told.stderr
        found[views] = json.loads(told.stdout)
    # What the run itself ended with is what is read back: the averages of the optimizer, in both.
    ended = json.loads((run / "result.json").read_text())["test"]["loss"]
    assert found["plain"]["loss"] == pytest.approx(ended, rel=1e-6)
    assert found["flip"]["loss"] != found["plain"]["loss"]


def test_augmentation_is_drawn_on_examples(convjax: Command, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    flags = ["--augment.rand.operations", "2", "--augment.mix.cutmix", "1", "--examples", "30", "--sheet", sheet]
    done = convjax("data", "digits", *flags)
    assert done.returncode == 0, done.stderr
    # Pairs of rows, ten pictures each, of 8 x 8 pixels enlarged 8 times, with 6 between and 16 for a caption.
    with Image.open(sheet) as image:
        assert image.size == (10 * 70 + 6, 4 * 86 + 6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--optim.name", "schedule_free_sgd"], "optim.schedule is cosine: it must be constant"),
        (["--optim.name", "shampoo"], "shampoo"),
        (["--data.augment.mix.mixup", "0.2", "--train.batch-size", "5"], "train.batch_size is 5: it must be such that"),
        (
            ["--optim.layers", "dense1/*", "--optim.layer-decay", "0.5"],
            "parameter head/bias matches none of optim.layers",
        ),
        (["--data.augment.rand.magnitude", "40"], "data.augment.rand.magnitude is 40.0: it must be from 0 to 30"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    convjax: Command, experiment: Path, tmp_path: Path, flags: list[str], message: str
) -> None:
    done = convjax("train", experiment, "--workdir", tmp_path / "run", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "run").exists()
