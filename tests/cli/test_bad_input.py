"""Wrong usage, configuration and input: the real command, its exit code, and a message that helps."""

import os
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image
from real_command import Command


def check(done: CompletedProcess[str], code: int, *parts: str) -> None:
    """Asserts exit code, the parts of the message on stderr, and that there is no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    # Messages in a frame may be broken into lines.
    flat = " ".join(done.stderr.replace("│", " ").split())
    for part in parts:
        assert part in flat, done.stderr


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--optim.lrr", "0.1"], ["--optim.lrr", "--optim.lr"]),
        (["--optim.lr", "fast"], ["--optim.lr", "fast"]),
        (["--optim.lr", "-0.1"], ["optim.lr is -0.1", "above 0"]),
        (["--optim.lr", "0"], ["optim.lr is 0", "above 0"]),
        (["--train.batch-size", "0"], ["train.batch_size is 0", "at least 1"]),
        (["--train.batch-size", "1294"], ["train.batch_size is 1294", "at most 1293"]),
        (["--train.length", "long"], ["train.length is 'long'", "'500 steps' or '5 epochs'"]),
        (["--model", "resnet21"], ["'resnet21'", "resnet20"]),
        (["--model"], ["--model needs a name"]),
        (["--model.num-classes", "100"], ["model.num_classes is 100", "'digits' has 10 classes"]),
        (["--model.width", "3"], ["--model.width"]),
        (["--data.name", "digitz"], ["'digitz'", "did you mean digits"]),
        (["--model", "resnet18"], ["8 x 8", "model.stem to cifar"]),
        (["--optim.name", "adan"], ["--optim.name", "adamw"]),
    ],
)
def test_a_wrong_flag_is_named_and_leaves_nothing_behind(
    convjax: Command, experiment: Path, tmp_path: Path, flags: list[str], parts: list[str]
) -> None:
    done = convjax("train", experiment, "--workdir", tmp_path / "run", *flags)
    check(done, 2, *parts)
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_that_is_not_prepared_is_answered_at_once(
    convjax: Command, experiment: Path, tmp_path: Path
) -> None:
    done = convjax(
        "train", experiment, "--workdir", tmp_path / "run", "--data.name", "cifar10", TFDS_DATA_DIR=str(tmp_path)
    )
    check(done, 2, "'cifar10' is not prepared", str(tmp_path), "tfds build cifar10")
    assert list(tmp_path.iterdir()) == []


def test_another_configuration_in_the_workdir_is_refused_field_by_field(
    convjax: Command, experiment: Path, trained: Path
) -> None:
    before = {path: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    done = convjax("train", experiment, "--workdir", trained, "--optim.lr", "0.7", "--seed", "3")
    check(done, 2, str(trained), "optim.lr: 0.1 there, 0.7 now", "seed: 0 there, 3 now")
    assert before == {path: path.read_bytes() for path in trained.iterdir() if path.is_file()}


def test_a_workdir_with_other_things_in_it_is_left_alone(convjax: Command, experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    check(convjax("train", experiment, "--workdir", tmp_path), 2, "is not empty and holds no run")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_workdir_below_a_file_is_refused(convjax: Command, experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check(convjax("train", experiment, "--workdir", tmp_path / "file" / "run"), 2, "cannot be made", "is a file")


def test_an_unwritable_workdir_is_refused(convjax: Command, experiment: Path) -> None:
    # Even root cannot make a directory there.
    check(convjax("train", experiment, "--workdir", "/proc/run"), 2, "/proc", "cannot be written")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("x = 1\n", ["defines no `config`"]),
        ("config = 3\n", ["a `config` of type int"]),
        ("import nothing_there\n", ["bad.py:1", "ModuleNotFoundError", "nothing_there"]),
        ("config = (\n", ["bad.py", "SyntaxError"]),
    ],
)
def test_an_experiment_file_without_a_configuration_is_named(
    convjax: Command, tmp_path: Path, content: str, parts: list[str]
) -> None:
    (tmp_path / "bad.py").write_text(content)
    check(convjax("train", tmp_path / "bad.py", "--workdir", tmp_path / "run"), 2, "bad.py", *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], []),
        (["trian"], ["'trian'", "train"]),
        (["train"], ["needs an experiment file"]),
        (["train", "nowhere.py"], ["nowhere.py", "no such experiment file"]),
        (["train", "--seed", "1"], ["the experiment file comes first"]),
        (["eval"], ["RUN"]),
        (["eval", "nowhere"], ["nowhere", "no such directory"]),
        (["predict", "nowhere", "a.png"], ["nowhere", "no such directory"]),
        (["data"], ["NAME"]),
        (["data", "synthetic", "--image-size", "-1"], ["data.image_size is -1"]),
        (["data", "digits", "--validation", "1"], ["data.validation is 1"]),
        (["data", "digits", "--examples", "0"], ["--examples is 0"]),
        (["data", "digits", "--sheet", "/proc/sheet.png"], ["/proc/sheet.png cannot be written"]),
        (["models", "resnet18"], ["resnet18"]),
        (["summary", "resnet19"], ["resnet19 is neither", "did you mean", "resnet18"]),
        (["summary", "resnet18", "--size", "0"], ["--size is 0", "at least 1"]),
        (["summary", "resnet18", "--size", "32"], ["images of 32 x 32 x 3", "model.stem to cifar"]),
        (["summary", "resnet18", "--model.widht", "3"], ["--model.widht", "--model.width"]),
        (["summary", "."], ["holds no run"]),
    ],
)
def test_wrong_usage_says_what_would_be_right(
    convjax: Command, tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    done = convjax(*arguments, cwd=tmp_path)
    check(done, 2, *parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--checkpoint", "7"], ["no checkpoint of step 7", "[10, 20]"]),
        (["--checkpoint", "newest"], ["--checkpoint is 'newest'", "best, latest"]),
        (["--split", "dev"], ["--split", "dev"]),
    ],
)
def test_a_wrong_checkpoint_or_split_is_named(
    convjax: Command, trained: Path, arguments: list[str], parts: list[str]
) -> None:
    check(convjax("eval", trained, *arguments), 2, *parts)


def test_a_directory_without_a_run_or_a_checkpoint_is_named(convjax: Command, trained: Path, tmp_path: Path) -> None:
    check(convjax("eval", tmp_path), 2, "holds no run")
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    check(convjax("eval", tmp_path / "run"), 2, "has no checkpoint yet")


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_checkpoint_is_named(convjax: Command, trained: Path, tmp_path: Path, damage: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    # The payload of the latest checkpoint is its largest file.
    payload = max((p for p in (run / "checkpoints" / "20").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    if damage == "missing":
        payload.unlink()
    else:
        os.truncate(payload, payload.stat().st_size // 2)
    check(convjax("eval", run, "--checkpoint", "20"), 1, "checkpoints/20", "is damaged", "no other to go back to")

    done = convjax("eval", run, "--checkpoint", "latest")
    assert done.returncode == 0, done.stderr
    warning = done.stderr.splitlines()
    assert len(warning) == 1
    assert "checkpoints/20: the checkpoint is damaged" in warning[0]
    assert warning[0].endswith("taking the checkpoint of step 10")
    assert "checkpoint of step 10" in done.stdout
    assert (run / "checkpoints" / "20").is_dir()


def test_damaged_metrics_are_named(convjax: Command, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"valid\n')
    check(convjax("eval", tmp_path / "run"), 1, "metrics.jsonl", "line 7")


@pytest.mark.parametrize("name", ["config.json", "data.json"])
@pytest.mark.parametrize("content", ['{"model": ', "{}", "[]", '{"model": {"type": 3}}'])
def test_a_damaged_description_is_named(
    convjax: Command, trained: Path, tmp_path: Path, name: str, content: str
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / name).write_text(content)
    check(convjax("eval", tmp_path / "run"), 1, name)


def test_bad_images_are_named_before_any_is_classified(convjax: Command, trained: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    Image.effect_noise((64, 64), 90).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    Image.new("L", (1, 1)).save(tmp_path / "one.png")
    for name, part in {
        "cut.png": "damaged or truncated",
        "empty.png": "the file is empty",
        "text.png": "not an image",
        "one.png": "1 x 1 pixels",
        "nowhere.png": "no such file",
    }.items():
        done = convjax("predict", trained, tmp_path / "good.png", tmp_path / name)
        check(done, 2, name, part)
        assert done.stdout == ""
    check(convjax("predict", trained), 2, "needs image files")
