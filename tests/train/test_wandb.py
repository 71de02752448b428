"""Metrics at Weights & Biases, off line, by the installed package."""

import importlib.util
import json
import signal
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


SESSION = """
import json, os, signal, sys
from pathlib import Path
from convjax.train.log import Mark, MetricsLog
from convjax.train.wandb_log import WandbConfig, opened

directory, (mode, first, mark_at, last, ending) = Path(sys.argv[1]), json.loads(sys.argv[2])
mark = directory / "mark"
known = Mark(**json.loads(mark.read_text())) if mark.is_file() else None
config = WandbConfig(mode=mode, project="tests")
with opened(config, directory, {"optim": {"lr": 0.1}}, first=True) as wandb:
    with MetricsLog(directory, step=first - 1, mark=known, wandb=wandb) as log:
        for step in range(first, last + 1):
            log.write(step, {"train.loss": 1 / step})
            log.write_timings(step, {"train.images_per_second": 7.0})
            log.write(step, {"validation.accuracy": step / 100})
            if step == mark_at:
                found = log.sync()
                mark.write_text(json.dumps({"bytes": found.bytes, "digest": found.digest}))
        if ending == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
"""
"""A part of a run, as far as its log goes: from a step to another, with a checkpoint in between."""


def session(directory: Path, *asked: object) -> None:
    done = subprocess.run([sys.executable, "-c", SESSION, directory, json.dumps(asked)], capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    assert "warning" not in done.stderr


def rows_are_the_lines(directory: Path) -> None:
    """Makes sure that the history is metrics.jsonl, line by line, in all files together."""
    _, rows = sent(directory)
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [{name: row[name] for name in line} for row, line in zip(rows, lines, strict=True)] == lines
    assert [row["_step"] for row in rows] == list(range(len(lines)))
    assert all(("train.images_per_second" in row) == ("train.loss" in row) for row in rows)


@pytest.mark.parametrize("ending", ["closed", "killed"])
def test_a_run_that_goes_on_is_one_run_with_each_line_once(tmp_path: Path, ending: str) -> None:
    # Steps 4 and 5 are taken back, and come again.
    session(tmp_path, "offline", 1, 3, 5, ending)
    session(tmp_path, "offline", 4, 5, 6, "closed")
    if ending == "closed":
        rows_are_the_lines(tmp_path)
    runs, rows = sent(tmp_path)
    # What was lost with the process that was killed has come again; a row that both hold has the same number, by which
    # wandb knows it, and says the same.
    for name in ("step", "train.loss", "validation.accuracy"):
        found = {row["_step"]: row.get(name) for row in rows}
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert found == {number: line.get(name) for number, line in enumerate(lines)}
        assert all(row.get(name) == found[row["_step"]] for row in rows)
    files = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(files) == 2
    # offline-run-TIME-ID, and a number behind it where two began within a second.
    assert len({*(run["id"] for run in runs), *(path.name.split("-")[3] for path in files)}) == 1
    assert {run["project"] for run in runs} == {"tests"}
    assert runs[-1]["config"]["optim"] == {"lr": 0.1}


def test_what_was_logged_without_it_is_handed_over_later(tmp_path: Path) -> None:
    session(tmp_path, "off", 1, 2, 2, "closed")
    session(tmp_path, "offline", 3, 3, 3, "closed")
    _, rows = sent(tmp_path)
    assert [row["step"] for row in rows] == [1, 1, 2, 2, 3, 3]


def test_the_command_hands_over_what_it_logs(convjax: Command, experiment: Path, tmp_path: Path) -> None:
    done = convjax("train", experiment, "--workdir", tmp_path / "run", "--wandb.mode", "offline")
    assert done.returncode == 0, done.stderr
    rows_are_the_lines(tmp_path / "run")
    (described,) = sent(tmp_path / "run")[0]
    assert described["project"] == "convjax"
    assert described["config"]["train"]["batch_size"] == 50


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
