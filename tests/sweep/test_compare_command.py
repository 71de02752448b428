"""`convjax compare` and searches by `convjax sweep`, as a user runs them."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import made
import pytest
from PIL import Image
from real_command import EXPERIMENT, Command, run

from convjax.sweep.record import Sweep

LONG = EXPERIMENT.replace("20 steps", "2000 steps").replace("10 steps", "100 steps")


@pytest.fixture(scope="module")
def norms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    axes = {"model.norm": ["batch", "none"], "optim.lr": [0.1, 0.2], "optim.momentum": [0.5, 0.9], "seed": [0, 1, 2]}
    batch = {("batch", lr, m, s): 0.9 + 0.01 * s + m / 50 for lr in (0.1, 0.2) for m in (0.5, 0.9) for s in range(3)}
    none = {("none", *rest): value - 0.02 - 0.003 * rest[2] for (_, *rest), value in batch.items()}
    lost = {("none", 0.2, 0.9, 2): "the loss of step 12 is nan: the training has diverged"}
    return made.sweep(tmp_path_factory.mktemp("sweeps") / "norms", axes, batch | none | lost)


def test_compare_prints_and_saves_everything(norms: Path, convjax: Command, tmp_path: Path) -> None:
    done = convjax("compare", norms, "--by", "model.norm", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "test.accuracy of 2 arms: 1 of 1 comparisons show a difference, with n = 3"
    row = next(line for line in lines if "lower by" in line)
    assert re.search(r"^ none +batch +3 ", row)
    assert any("diverged at step 12" in line and "model.norm=none, optim.lr=0.2" in line for line in lines)
    assert any(line.startswith("- none: 1 of 12 runs do not count (1 diverged)") for line in lines)
    assert "\x1b" not in done.stdout
    saved = lines[-1].removeprefix(f"saved in {tmp_path / 'out'}: ").split(", ")
    assert sorted(saved) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert {"comparison.md", "arms.csv", "differences.csv", "runs.csv", "arms.png", "curves.svg"} <= set(saved)
    for path in (tmp_path / "out").glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width > 500
    assert lines[0] in (tmp_path / "out" / "comparison.md").read_text()


def test_compare_saves_beside_the_runs_and_draws_a_heat_map(norms: Path, convjax: Command) -> None:
    done = convjax("compare", norms, "--metric", "train.loss", "--no-costs", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["metric"] == "train.loss:last"
    assert len(found["arms"]) == 8
    assert {(row["paired"]["difference"]["n"], row["p"]) for row in found["differences"]} == {(3, None), (2, None)}
    assert (norms / "compare" / "train.loss-last" / "heat_map.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--baseline", "batch"], "fits 4 arms: arms are norm=batch, lr=0.1, momentum=0.5;"),
        (["-o", __file__], "cannot be made"),
    ],
)
def test_wrong_usage_of_compare(norms: Path, convjax: Command, arguments: list[str], message: str) -> None:
    done = convjax("compare", norms, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_compare_of_what_is_no_sweep(convjax: Command, tmp_path: Path) -> None:
    done = convjax("compare", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "holds no sweep: it has no sweep.json" in done.stderr


def test_a_search_from_the_command_to_its_comparison(convjax: Command, tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(EXPERIMENT + 'axes = {"seed": range(3)}\n')
    command = ("sweep", "tiny.py", "optim.lr=0.001..1:log", "--sampler", "tpe", "--jobs", "2", "--workdir", "found")
    done = convjax(*command, "--trials", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 trials: 2 finished, 0 pruned, 0 failed" in done.stdout
    runs = Sweep.read(tmp_path / "found").runs
    assert [run.state for run in runs] == ["finished", "finished"]
    # The best is chosen by the validation split.
    best = max(json.loads((run.directory / "result.json").read_text())["validation"]["accuracy"] for run in runs)
    assert f"{100 * best:.2f} %" in done.stdout.splitlines()[-2]
    # The flags of the runs are those of their settings.
    rates = [json.loads((run.directory / "config.json").read_text())["optim"]["lr"] for run in runs]
    assert rates == [run.settings["optim.lr"] for run in runs]
    done = convjax("compare", "found", "--metric", "validation.accuracy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the sweep has no axis seed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampler", "tpe", "--trials", "2", "--dry-run"], "leave out --launcher, --dry-run"),
        (["--sampler", "tpe", "--trials", "2", "--data.validation", "0"], "a search chooses by the validation split"),
    ],
)
def test_wrong_usage_of_a_search(convjax: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    done = convjax("sweep", "tiny.py", "optim.lr=0.001..1:log", "--workdir", "found", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert not (tmp_path / "found").exists()


def test_a_search_does_not_take_over_a_sweep(norms: Path, convjax: Command, tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    done = convjax("sweep", "tiny.py", "optim.lr=0.1,0.2", "--sampler", "grid", "--workdir", norms, cwd=tmp_path)
    assert done.returncode == 2
    assert "holds a sweep that is no search" in done.stderr


@pytest.mark.slow
def test_hopeless_runs_are_stopped_by_their_signal(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text(LONG)
    command = ("sweep", "long.py", "optim.lr=0.05,0.06,0.07,0.08,0.0000001", "--sampler", "grid", "--workdir", "found")
    done = run(*command, "--trials", "4", "--jobs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 trials: 4 finished, 0 pruned, 0 failed" in done.stdout
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5 trials: 4 finished, 1 pruned, 0 failed" in done.stdout
    hopeless = Sweep.read(tmp_path / "found").runs[-1]
    assert hopeless.exit_code() == 128 + signal.SIGTERM
    assert "SIGTERM: stopping after a checkpoint" in hopeless.log.read_text()
    done = run("compare", "found", cwd=tmp_path)
    assert f"pruned at step {hopeless.pruned.read_text().strip()}" in done.stdout


@pytest.mark.slow
def test_a_search_stopped_by_a_signal_goes_on(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text(LONG)
    arguments = ("sweep", "long.py", "optim.lr=0.01..1:log", "--sampler", "tpe", "--trials", "2", "--workdir", "found")
    command = [str(Path(sys.executable).parent / "convjax"), *arguments]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while not any("validation" in path.read_text() for path in (tmp_path / "found").glob("runs/*/metrics.jsonl")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGINT, stdout + stderr
    assert "go on with: convjax sweep long.py" in stderr
    (first,) = Sweep.read(tmp_path / "found").runs
    assert first.state == "missing"
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in first.log.read_text()
    assert "2 trials: 2 finished" in done.stdout
