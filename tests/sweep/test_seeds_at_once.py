"""Seeds of a sweep in one process, with the real command: stopped, resumed, one of them failing."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from real_command import Command

from convjax.cli import sweep
from convjax.cli import train as train_command
from convjax.errors import UsageError
from convjax.sweep.job import Job
from convjax.sweep.record import Arm, Sweep

EXPERIMENT = """
from convjax.models import MLP
from convjax.train.config import Config, DataConfig, TrainConfig

config = Config(
    model=MLP(hidden=(4,)),
    data=DataConfig("digits", validation=0.5),
    train=TrainConfig(length="1500 steps", batch_size=20, evaluate_every="1500 steps", log_every=1),
)
"""
COMMAND = ("sweep", "mlp.py", "seed=0..2", "--workdir", "swept", "--seeds-at-once")


def logged(path: Path) -> list[int]:
    return [metrics.read_bytes().count(b"\n") for metrics in path.glob("runs/*/metrics.jsonl")]


def test_seeds_are_one_process_that_stops_and_goes_on(convjax: Command, tmp_path: Path) -> None:
    (tmp_path / "mlp.py").write_text(EXPERIMENT)
    command = [str(Path(sys.executable).parent / "convjax"), *COMMAND]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while not any(count >= 10 for count in logged(tmp_path / "swept")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    arms = Sweep.read(tmp_path / "swept").runs
    assert [arm.state for arm in arms] == ["missing"] * 3
    assert all(any((arm.directory / "checkpoints").iterdir()) for arm in arms)

    done = convjax(*COMMAND, cwd=tmp_path)
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-1] == "swept: all 3 runs are finished"
    for arm in arms:
        steps = [json.loads(line)["step"] for line in (arm.directory / "metrics.jsonl").read_text().splitlines()]
        assert steps == [*range(1, 1501), 1500]  # the last one is the validation's
        assert arm.exit_code() == 0
    told = [json.loads((arm.directory / "environment.json").read_text()) for arm in arms]
    assert len({environment["process"] for environment in told}) == 1
    assert len({environment["resumed"][0]["process"] for environment in told}) == 1
    lines = arms[0].log.read_text()
    assert "seed 2: going on from step" in lines
    others = " ".join(f"--also {seed}=swept/runs/{arms[seed].name}" for seed in (1, 2))
    first = f"convjax train swept/experiment.py --workdir swept/runs/{arms[0].name} --seed 0 {others}"
    assert lines.splitlines()[0] == f"$ {first}"
    assert arms[1].log.read_text().splitlines()[0] == f"$ {first}"
    assert convjax("replay", arms[1].directory, "--step", "1500", cwd=tmp_path).returncode == 0


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "logs").mkdir()
    arms = [Arm.of(tmp_path, digit * 32, {"seed": int(digit)}) for digit in "0123"]
    for arm in arms:
        arm.directory.mkdir(parents=True)
    return Job.of(arms[0], Path("experiment.py"), []).with_seeds(dict(enumerate(arms[1:], start=1)))


def test_each_run_ends_with_a_code_of_its_own(job: Job) -> None:
    (job.arms[0].directory / "result.json").write_text("{}")
    (job.arms[2].directory / "failure.json").write_text('{"error": "the loss of step 7 is nan"}')
    (job.arms[3].directory / "failure.json").write_text("{")
    job.ended(143)
    assert [arm.exit_code() for arm in job.arms] == [0, 143, 1, 143]
    assert [arm.state for arm in job.arms] == ["finished", "missing", "failed", "missing"]
    assert job.arms[2].last_lines(1) == ["convjax: failed: the loss of step 7 is nan"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=0..1", "--launcher", "slurm"], "--seeds-at-once is for processes on this machine"),
        (["seed=0..1", "--dry-run"], "--seeds-at-once is for processes on this machine"),
        (
            ["optim.lr=0.1,0.2"],
            "--seeds-at-once: no two runs differ in the seed alone; give several, such as seed=0..4",
        ),
        (["seed=0..1", "--data.feed", "streamed"], "--seeds-at-once: seed=0: data.feed is 'streamed': it must be"),
        (["seed=0..1", "--parallel.mode", "pmap"], "--seeds-at-once: seed=0: parallel.mode is 'pmap': it must be jit"),
    ],
)
def test_what_cannot_go_together_is_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlp.py").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=re.escape(message)):
        sweep.run(["mlp.py", *arguments, "--seeds-at-once"])
    assert [path.name for path in tmp_path.iterdir()] == ["mlp.py"]


@pytest.mark.parametrize(
    ("also", "message"),
    [
        (["1"], "--also is '1': it must be SEED=DIR, as 1=runs/second"),
        (["one=a"], "--also is 'one=a': it must be SEED=DIR"),
        (["0=a"], "--also: seed 0 is given twice"),
        (["1=a", "1=b"], "--also: seed 1 is given twice"),
        (["1=a", "2=./a"], "--also: directory ./a is given twice"),
        (["1=runs/mlp"], "--also: directory runs/mlp is given twice"),
    ],
)
def test_wrong_seeds_and_directories(
    also: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlp.py").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=re.escape(message)):
        train_command.run(["mlp.py", *(part for text in also for part in ("--also", text))])
    assert [path.name for path in tmp_path.iterdir()] == ["mlp.py"]
