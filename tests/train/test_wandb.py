"""Metrics at Weights & Biases, off line, by the installed package."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from real_command import Command, run

from convjax.errors import UsageError
from convjax.train.wandb_log import WandbConfig


def sent(workdir: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns what was said of the run each time, and the rows of its history."""
    files = sorted((workdir / "wandb").glob("offline-run-*/*.wandb"))
    # In a process of its own: the package's messages and warnings are none of the tests'.
    program = Path(__file__).parents[1] / "wandb_file.py"
    done = subprocess.run([sys.executable, program, *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [row for row in found if "id" in row], [row for row in found if "id" not in row]


def test_a_run_that_goes_on_is_one_run_with_each_line_once(convjax: Command, experiment: Path, tmp_path: Path) -> None:
    flags = ["--workdir", tmp_path / "run", "--optim.schedule", "constant", "--wandb.project", "tests"]
    done = convjax("train", experiment, *flags, "--wandb.mode", "offline")
    assert done.returncode == 0, done.stderr
    _, before = sent(tmp_path / "run")
    # Its last checkpoint is lost: the log is cut back, and what stood there comes again.
    latest = max((tmp_path / "run" / "checkpoints").iterdir(), key=lambda path: int(path.name))
    latest.rename(tmp_path / "lost")
    done = convjax("train", experiment, *flags, "--wandb.mode", "offline", "--train.length", "30 steps")
    assert done.returncode == 0, done.stderr
    runs, rows = sent(tmp_path / "run")
    assert len({run["id"] for run in runs}) == 1
    assert {run["project"] for run in runs} == {"tests"}
    assert runs[0]["config"]["train"]["batch_size"] == 50
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [{name: row[name] for name in line} for row, line in zip(rows, lines, strict=True)] == lines
    assert [row["_step"] for row in rows] == list(range(len(lines)))
    assert 0 < len(before) < len(rows)
    assert all("train.images_per_second" in row for row in rows if "train.loss" in row)


def test_what_was_logged_without_it_is_handed_over_later(convjax: Command, experiment: Path, tmp_path: Path) -> None:
    flags = ["--workdir", tmp_path / "run", "--optim.schedule", "constant"]
    assert convjax("train", experiment, *flags).returncode == 0
    done = convjax("train", experiment, *flags, "--train.length", "30 steps", "--wandb.mode", "offline")
    assert done.returncode == 0, done.stderr
    assert "wandb.mode is 'offline' from here on; it was 'off'" in done.stderr
    _, rows = sent(tmp_path / "run")
    assert [row["step"] for row in rows] == [5, 10, 10, 15, 20, 20, 25, 30, 30]


def test_a_service_that_cannot_be_reached_costs_a_warning(convjax: Command, experiment: Path, tmp_path: Path) -> None:
    flags = ["--workdir", tmp_path / "run", "--wandb.mode", "online"]
    # Nobody has logged in.
    done = convjax("train", experiment, *flags, HOME=str(tmp_path), WANDB_API_KEY="", NETRC=str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Weights & Biases cannot begin, the training goes on without") == 1
    assert (tmp_path / "run" / "result.json").is_file()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 6


def test_without_the_package_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    WandbConfig().require()
    with pytest.raises(UsageError, match=r"wandb\.mode is 'offline': pip install 'convjax\[wandb\]'"):
        WandbConfig(mode="offline").require()
    with pytest.raises(UsageError, match=r"wandb\.project is empty"):
        WandbConfig(project="")


def test_the_flags_are_in_the_help(experiment: Path) -> None:
    assert "--wandb.mode {off,offline,online}" in run("train", experiment, "--help").stdout
