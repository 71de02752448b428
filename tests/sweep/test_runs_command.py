"""`convjax runs`, as a user runs it."""

import csv
import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import made
import pytest
from real_command import Command, run

from convjax.cli import runs
from convjax.errors import UsageError
from convjax.models import MLP
from convjax.sweep.query import Condition, logged, ordered
from convjax.sweep.record import Arm
from convjax.sweep.runs import find
from convjax.train.config import Config, OptimConfig
from convjax.train.config_json import to_json


def plain(path: Path, lr: float, accuracy: float | None) -> Path:
    """Writes a run outside of any sweep; unfinished where it has no accuracy."""
    arm = Arm("", path, {})
    made.finish(arm, accuracy or 0.0)
    made.write(path, "config.json", to_json(Config(MLP(hidden=(4,), num_classes=2), optim=OptimConfig(lr=lr))))
    if accuracy is None:
        (path / "result.json").unlink()
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all kinds."""
    root = tmp_path_factory.mktemp("experiments")
    plain(root / "low", 0.1, 0.9)
    plain(root / "high", 0.3, 0.95)
    stopped = plain(root / "stopped", 0.1, None)
    (stopped / "checkpoints" / "20").mkdir(parents=True)
    broke = plain(root / "old" / "broke", 0.1, None)
    made.write(broke, "failure.json", {"error": "out of memory: lower train.batch_size"})
    alive = plain(root / "old" / "alive", 0.1, None)
    (alive / "lock").write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid()}))
    torn = plain(root / "torn", 0.1, 0.5)
    (torn / "result.json").write_text('{"checkpoint": 3')
    begun = root / "begun"
    begun.mkdir()
    made.write(begun, "environment.json", {})
    (root / "old" / "back").symlink_to(root)
    (root / "notes").mkdir()
    (root / "notes" / "config.json").write_text('{"architectures": ["Other"]}')
    outcomes = {("x", 0): 0.5, ("x", 1): "the loss is nan: the training has diverged", ("y", 0): "no space left"}
    made.sweep(root / "sweep", {"arm": ["x", "y"], "seed": [0, 1]}, outcomes)
    return root


Listed: TypeAlias = Callable[..., list[dict[str, str]]]


@pytest.fixture
def listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> Listed:
    """The rows of the CSV that the command prints, without a process of its own."""

    def rows(*flags: str) -> list[dict[str, str]]:
        runs.run([str(folder), "--format", "csv", *flags])
        return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))

    return rows


def test_every_run_is_listed_with_how_it_stands(folder: Path) -> None:
    done = run("runs", folder, "--format", "csv")
    assert done.returncode == 0, done.stderr
    rows = {row["run"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    stands = {name: (row["status"], row["problem"]) for name, row in rows.items() if not name.startswith("sweep")}
    torn = stands.pop("torn")
    assert stands == {
        "low": ("finished", ""),
        "high": ("finished", ""),
        "stopped": ("interrupted", "goes on from step 20"),
        "old/broke": ("failed", "out of memory: lower train.batch_size"),
        "old/alive": ("running", ""),
        "begun": ("interrupted", "has no checkpoint yet"),
    }
    assert torn[0] == "damaged"
    assert "result.json cannot be read" in torn[1]
    swept = sorted((row["arm"], row["status"], row["problem"]) for name, row in rows.items() if "sweep/runs/" in name)
    assert swept == [
        ("x", "failed", "diverged at step 12"),
        ("x", "finished", ""),
        ("y", "failed", "failed: no space left"),
        ("y", "not started", ""),
    ]
    # What differs is shown, what does not is not; numbers have all their digits.
    assert "optim.momentum" not in rows["low"]
    assert (rows["low"]["optim.lr"], rows["low"]["test.accuracy"]) == ("0.1", "0.9")
    assert rows["stopped"]["step"] == "30"
    assert done.stderr == f"convjax: warning: no runs in notes of {folder}\n"


def test_the_table_for_reading(folder: Path) -> None:
    done = run("runs", folder, "--where", "status=finished", "--sort", "test.accuracy")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0].partition("/")[0] for line in lines[1:-1]] == ["high", "low", "sweep"]
    assert "test.accuracy (%)" in lines[0]
    assert " 95.00 " in lines[1]
    assert lines[-1] == "3 of 11 runs: 3 finished"


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--where", "optim.lr=0.3"], ["high"]),
        (["--where", "test.accuracy>0.9"], ["high"]),
        (["--where", "test.accuracy>=0.9", "--sort", "test.accuracy"], ["high", "low"]),
        (["--where", "test.accuracy>=0.9", "--sort", "test.accuracy", "--reverse"], ["low", "high"]),
        (["--where", "test.accuracy>=0.9", "--sort", "test.loss"], ["high", "low"]),
        (["--where", "test.accuracy>=0.9", "optim.lr<0.2"], ["low"]),
        (["--where", "test.accuracy>=0.9", "--where", "optim.lr<0.2"], ["low"]),
        (["--where", "status=interrupted", "step>=30"], ["stopped"]),
        (["--where", "optim.nesterov=1"], []),
        (["--where", "optim.nesterov!=True", "status=finished", "optim.lr=0.1"], []),
    ],
)
def test_conditions_and_orders(listed: Listed, flags: list[str], names: list[str]) -> None:
    assert [row["run"] for row in listed(*flags)] == names


def test_columns_and_json(folder: Path, listed: Listed, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--columns", "run", "train.loss", "validation.accuracy:best", "--where", "optim.lr=0.3"]
    assert listed(*flags) == [{"run": "high", "train.loss": str(1 / 30), "validation.accuracy:best": "0.7125"}]
    runs.run([str(folder), "--format", "json", *flags])
    assert json.loads(capsys.readouterr().out) == [
        {"run": "high", "train.loss": 1 / 30, "validation.accuracy:best": 0.7125}
    ]
    runs.run([str(folder), "--format", "json", "--where", "optim.lr=0.3"])
    whole = json.loads(capsys.readouterr().out)
    assert whole[0]["settings"]["optim.momentum"] == 0.9
    assert whole[0]["results"]["test.loss"] == pytest.approx(0.05)


def test_all_that_was_logged_as_csv(folder: Path, tmp_path: Path) -> None:
    done = run("runs", folder / "high", "--metrics", "--format", "csv", "-o", tmp_path / "metrics.csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO((tmp_path / "metrics.csv").read_text())))
    assert list(rows[0]) == ["run", "step", "train.loss", "train.accuracy", "validation.loss", "validation.accuracy"]
    # A step's training and validation stand in one line.
    assert [(row["run"], row["step"], row["train.loss"]) for row in rows] == [
        ("high", str(step), str(1 / step)) for step in (10, 20, 30)
    ]
    assert float(rows[2]["validation.accuracy"]) == pytest.approx(0.95 * 30 / 40)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--where", "test.acuracy>0.9"], "--where names 'test.acuracy', which no run has: did you mean test.accuracy"),
        (["--sort", "optim.rl"], "--sort names 'optim.rl', which no run has"),
        (["--columns", "nothing"], "--columns names 'nothing', which no run has"),
        (["--where", "optim.lr"], "--where is 'optim.lr': it must read like optim.lr=0.1"),
        (["--where", "optim.lr>big"], "> compares with a number, not with 'big'"),
        (["--metrics"], "--metrics gives a table for programs: add --format csv"),
        (["--format", "csv", "-o", "/nowhere/runs.csv"], "-o is /nowhere/runs.csv: it cannot be written"),
    ],
)
def test_wrong_usage(folder: Path, flags: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        runs.run([str(folder), *flags])


def test_wrong_usage_of_the_command(folder: Path, convjax: Command) -> None:
    done = convjax("runs", folder, "--where", "optim.lr>big")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: --where is 'optim.lr>big': > compares with a number" in done.stderr


def test_a_directory_without_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path} holds no run, and none below it"):
        runs.run([str(tmp_path)])
    with pytest.raises(UsageError, match="there is no such directory"):
        runs.run([str(tmp_path / "absent")])


def test_a_condition_is_not_run() -> None:
    assert Condition.parse("optim.lr=__import__('os')").value == "__import__('os')"
    assert Condition.parse("a.b == [1, 2]") == Condition("a.b", "=", [1, 2])
    with pytest.raises(UsageError):
        Condition.parse("; import os")


def test_runs_without_a_value_come_last_both_ways(folder: Path) -> None:
    rows = find(folder)
    for reverse in (False, True):
        names = [row.name for row in ordered(rows, "test.accuracy", reverse=reverse)]
        assert {*names[:2]} <= {"high", "low", *(n for n in names if n.startswith("sweep"))}
        assert names.index("high") < names.index("stopped")
    assert logged(())[0] == ["run", "step"]


def test_a_thousand_runs_take_few_seconds_and_no_jax(tmp_path: Path) -> None:
    first = plain(tmp_path / "0", 0.1, 0.9)
    contents = {name: (first / name).read_bytes() for name in ("config.json", "result.json", "metrics.jsonl")}
    for i in range(1, 1000):
        (tmp_path / str(i)).mkdir()
        for name, content in contents.items():
            (tmp_path / str(i) / name).write_bytes(content.replace(b'"lr": 0.1', b'"lr": %g' % (0.1 + i)))
    code = (
        "import sys\nfrom convjax.cli import runs\n"
        f"runs.run([{str(tmp_path)!r}, '--where', 'optim.lr>900', '--sort', 'test.accuracy'])\n"
        "print('jax' in sys.modules, 'scipy' in sys.modules)"
    )
    before = os.times().children_user
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["100 of 1000 runs: 100 finished", "False False"]
    assert os.times().children_user - before < 6  # processor time, most of it Python's start
