"""Sweeps with the real command: stopped, resumed, failing, extended."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from real_command import Command, run

from convjax import allocator
from convjax.cli import sweep
from convjax.errors import UsageError
from convjax.sweep.record import Arm, State, Sweep
from convjax.train import lock

EXPERIMENT = """
from convjax.models import MLP
from convjax.train.config import Config, DataConfig, TrainConfig

config = Config(
    model=MLP(hidden=(4,)),
    data=DataConfig("digits", validation=0.5),
    train=TrainConfig(length="1500 steps", batch_size=20, evaluate_every="1500 steps", log_every=1),
)
axes = {"optim.lr": [0.05], "seed": range(2)}
"""
COMMAND = ("sweep", "mlp.py", "optim.lr=0.02,0.05", "--workdir", "swept", "--jobs", "2")


class Swept(NamedTuple):
    """A sweep of four that was stopped, and then went on to its end."""

    directory: Path
    stopped: subprocess.CompletedProcess[str]
    states: list[State]
    left: list[str]
    resumed: subprocess.CompletedProcess[str]


def logged(path: Path) -> int:
    return sum(metrics.read_bytes().count(b"\n") for metrics in path.glob("runs/*/metrics.jsonl"))


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    directory = tmp_path_factory.mktemp("sweeps")
    (directory / "mlp.py").write_text(EXPERIMENT)
    swept = directory / "swept"
    command = [str(Path(sys.executable).parent / "convjax"), *COMMAND]
    with subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while logged(swept) < 10:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=120)
    stopped = subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
    runs = Sweep.read(swept).runs
    states = [arm.state for arm in runs]
    left = [arm.name for arm in runs if arm.directory.is_dir() and lock.held(arm.directory)]
    return Swept(directory, stopped, states, left, run(*COMMAND, cwd=directory))


def test_a_signal_stops_the_runs_with_a_checkpoint(swept: Swept) -> None:
    stopped = swept.stopped
    assert stopped.returncode == 143, stopped
    last = f"stopped by SIGTERM; what its runs had done is saved; go on with: convjax {' '.join(COMMAND)}"
    assert stopped.stderr.splitlines()[-1] == f"convjax: {last}"
    assert set(swept.states) <= {"missing", "finished"}
    assert "missing" in swept.states
    assert swept.left == []


def test_the_same_command_goes_on_to_the_end(swept: Swept) -> None:
    assert swept.resumed.returncode == 0, swept.resumed
    assert swept.resumed.stdout.splitlines()[-1] == "swept: all 4 runs are finished"
    record = Sweep.read(swept.directory / "swept")
    assert [(arm.settings, arm.state) for arm in record.runs] == [
        ({"optim.lr": lr, "seed": seed}, "finished") for lr in (0.02, 0.05) for seed in (0, 1)
    ]
    assert record.axes == {"optim.lr": (0.02, 0.05), "seed": (0, 1)}
    # Whoever had logged something goes on where it was.
    assert any("going on from step" in arm.log.read_text() for arm in record.runs)
    for arm in record.runs:
        steps = [json.loads(line)["step"] for line in (arm.directory / "metrics.jsonl").read_text().splitlines()]
        assert steps == [*range(1, 1501), 1500]  # the last one is the validation's
        config = json.loads((arm.directory / "config.json").read_text())
        assert {"optim.lr": config["optim"]["lr"], "seed": config["seed"]} == arm.settings


def test_each_run_settles_its_own_allocator(swept: Swept) -> None:
    for arm in Sweep.read(swept.directory / "swept").runs:
        assert json.loads((arm.directory / "environment.json").read_text())["allocator"] == allocator.SETTINGS


def test_a_run_is_what_its_printed_command_trains(swept: Swept, convjax: Command, tmp_path: Path) -> None:
    arm = Sweep.read(swept.directory / "swept").runs[0]
    line = arm.log.read_text().splitlines()[0]
    assert line == f"$ convjax train swept/experiment.py --workdir swept/runs/{arm.name} --optim.lr 0.02 --seed 0"
    alone = line.removeprefix("$ convjax ").replace(f"swept/runs/{arm.name}", str(tmp_path / "alone")).split()
    assert convjax(*alone, cwd=swept.directory).returncode == 0
    for name in ("metrics.jsonl", "config.json", "result.json"):
        assert (tmp_path / "alone" / name).read_bytes() == (arm.directory / name).read_bytes()


@pytest.fixture
def copied(swept: Swept, tmp_path: Path) -> Path:
    """A copy of the directory with the experiment and the finished sweep, to be changed."""
    shutil.copytree(swept.directory, tmp_path / "copy")
    return tmp_path / "copy"


def test_more_values_reuse_what_is_finished_and_failures_are_told(copied: Path, convjax: Command) -> None:
    before = {arm.name: (arm.directory / "result.json").stat().st_mtime_ns for arm in Sweep.read(copied / "swept").runs}
    command = ["sweep", "mlp.py", "optim.lr=0.02,1e30", "seed=0..1", "--workdir", "swept", "--jobs", "2"]
    done = convjax(*command, cwd=copied)
    assert done.returncode == 1, done
    assert "2 of 4 runs are finished already" in done.stdout
    # Two runs of the first sweep are no part of this one, and are not lost.
    assert "2 runs in swept/runs are of other settings, and no part of this sweep" in done.stdout
    after = {name: (copied / "swept/runs" / name / "result.json").stat().st_mtime_ns for name in before}
    assert after == before
    failed = [arm for arm in Sweep.read(copied / "swept").runs if arm.state == "failed"]
    assert [arm.settings["optim.lr"] for arm in failed] == [1e30] * 2
    assert done.stderr.startswith(
        "convjax: failed: 2 of 4 runs are not finished; the same command takes them up again\n"
    )
    for arm in failed:
        assert f"{arm.name}  optim.lr=1e+30 seed={arm.settings['seed']}: failed, exit code 1\n" in done.stderr
        assert arm.last_lines(1)[0].startswith("convjax: failed: ")
        assert arm.last_lines(1)[0] in done.stderr


def test_what_is_finished_is_not_started_again(copied: Path, convjax: Command) -> None:
    done = convjax(*COMMAND, cwd=copied)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == ["4 of 4 runs are finished already", "swept: all 4 runs are finished"]


def test_the_arms_are_compared_at_the_end_if_asked_for(copied: Path, convjax: Command) -> None:
    done = convjax(*COMMAND, "--compare", cwd=copied)
    assert done.returncode == 0, done
    assert re.search(r"^test\.accuracy of 2 arms: ", done.stdout, re.MULTILINE)
    assert (copied / "swept" / "compare" / "test.accuracy" / "comparison.md").is_file()
    assert done.stdout.splitlines()[-1] == "swept: all 4 runs are finished"


def test_one_sweep_at_a_time(copied: Path, convjax: Command) -> None:
    with lock.Lock(copied / "swept"):
        done = convjax(*COMMAND, cwd=copied)
    assert done.returncode == 2
    assert re.search(rf"swept is being written by process {os.getpid()} on host \S+: wait for it", done.stderr)


def test_a_dry_run_lists_and_times_the_runs_and_writes_nothing(swept: Swept, convjax: Command, tmp_path: Path) -> None:
    shutil.copy(swept.directory / "mlp.py", tmp_path)
    done = convjax("sweep", "mlp.py", "optim.lr=0.1,0.2", "seed=0..9", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done
    assert done.stderr.count("timing") == 1  # the runs differ in numbers alone
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["run", "optim.lr", "seed", "steps", "state", "time"]
    assert [row[1:5] for row in rows[1:21]] == [
        [lr, str(seed), "1,500", "missing"] for lr in ("0.1", "0.2") for seed in range(10)
    ]
    assert rows[21][:8] == ["20", "runs,", "20", "of", "them", "to", "be", "done,"]
    assert [path.name for path in tmp_path.iterdir()] == ["mlp.py"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "sweep needs an experiment file"),
        (["--jobs", "2"], "the experiment file comes first"),
        (["absent.py"], "absent.py: there is no such experiment file"),
        (["plain.py"], "nothing varies: plain.py defines no `axes`, and none is given, such as seed=0..4"),
        (["mlp.py", "seed=0", "seed=1"], "axis seed is given twice"),
        (["mlp.py", "--jobs", "0"], "--jobs is 0: it must be at least 1"),
        (["mlp.py", "--workdir", "."], ". is not empty and holds no sweep (no sweep.json): take another --workdir"),
        (["mlp.py", "--workdir", "mlp.py"], "mlp.py is a file: take another --workdir"),
        (["mlp.py", "--launcher", "ray"], "--launcher ray needs Ray: pip install 'convjax[ray]'"),
        (["mlp.py", "--compare", "--dry-run"], "--compare is of runs that are finished"),
        (["mlp.py", "--slurm.gpus", "-1"], "--slurm.gpus is -1: it must be at least 0"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlp.py").write_text(EXPERIMENT)
    (tmp_path / "plain.py").write_text(EXPERIMENT.split("axes")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=re.escape(message)):
        sweep.run(arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlp.py", "plain.py"]


@pytest.fixture
def arm(tmp_path: Path) -> Arm:
    (tmp_path / "logs").mkdir()
    found = Arm.of(tmp_path, "0123456789abcdef", {"seed": 0})
    found.directory.mkdir(parents=True)
    return found


def state(arm: Arm) -> State:
    return arm.state


def test_the_state_of_a_run_is_read_from_its_files(arm: Arm) -> None:
    assert state(arm) == "missing"
    for code, expected in {143: "missing", 138: "missing", 1: "failed", 2: "failed", -9: "failed", 0: "failed"}.items():
        arm.exit.write_text(f"{code}\n")
        assert (code, state(arm)) == (code, expected)
    with lock.Lock(arm.directory):
        assert state(arm) == "running"
    assert state(arm) == "failed"
    (arm.directory / "result.json").write_text("{}")
    assert state(arm) == "finished"


def test_a_process_that_is_gone_holds_nothing(arm: Arm) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    holder = {"host": os.uname().nodename, "process": process.pid}
    (arm.directory / "lock").write_text(json.dumps(holder))
    assert state(arm) == "missing"
    # One on another machine lives as long as it gives signs of life.
    (arm.directory / "lock").write_text(json.dumps({**holder, "host": "elsewhere"}))
    assert state(arm) == "running"
    os.utime(arm.directory / "lock", (time.time() - 60, time.time() - 60))
    assert state(arm) == "missing"


def test_what_is_no_sweep_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no such directory"):
        Sweep.read(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"holds no sweep: it has no sweep.json"):
        Sweep.read(tmp_path)
