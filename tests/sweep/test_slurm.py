"""The SLURM launcher: its script run by bash, and a real cluster where one can be started."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_command import Command

from convjax.errors import RunError, UsageError
from convjax.sweep import slurm
from convjax.sweep.job import Job
from convjax.sweep.launch import Standing
from convjax.sweep.record import Arm, Sweep

CLUSTER = Path(__file__).parents[1] / "slurm" / "cluster.sh"
# In the place of `convjax`: prints its arguments, and waits for a signal if there is one called "wait".
COMMAND = """#!/bin/bash
trap 'echo saved; mkdir -p "$4/checkpoints/$SAVES"; exit 138' USR1
trap 'echo saved; exit 143' TERM
echo "$@"
if [[ $* == *wait* ]]; then echo waiting; while :; do sleep 0.05; done; fi
exit 3
"""


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Two jobs whose command is a stand-in, and a `scontrol` that only notes what it is asked."""
    executable(tmp_path / "convjax", COMMAND)
    executable(tmp_path / "scontrol", f'#!/bin/bash\necho "$@" > "{tmp_path}/asked"\n')
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    arms = [Arm.of(tmp_path, digit * 32, {"seed": int(digit)}) for digit in "01"]
    return [Job.of(arm, Path("my experiment.py"), flags) for arm, flags in zip(arms, ([], ["wait"]), strict=True)]


def test_the_script_runs_the_command_of_its_task(jobs: list[Job], tmp_path: Path) -> None:
    (text,) = slurm.scripts(jobs, tmp_path, slurm.Request(), None)
    done = subprocess.run(["bash"], input=text, env={**os.environ, "SLURM_ARRAY_TASK_ID": "0"}, text=True, timeout=60)
    assert done.returncode == 3
    arm = jobs[0].arm
    assert arm.exit_code() == 3
    assert arm.state == "failed"
    workdir = tmp_path / "runs" / ("0" * 12)
    assert arm.log.read_text().splitlines() == [
        f"$ convjax train 'my experiment.py' --workdir {workdir}",
        f"train my experiment.py --workdir {workdir}",
    ]
    assert not (tmp_path / "asked").exists()


def test_a_run_whose_time_is_over_saves_and_is_queued_again(jobs: list[Job], tmp_path: Path) -> None:
    end_of_time(jobs, tmp_path, saves="7")
    assert (tmp_path / "asked").read_text() == "requeue 77\n"
    assert jobs[1].arm.log.read_text().splitlines()[-1] == "saved"
    assert jobs[1].arm.state == "missing"
    # Nothing new has been saved the second time: it would go on like this for ever.
    (tmp_path / "asked").unlink()
    end_of_time(jobs, tmp_path, saves="7")
    assert not (tmp_path / "asked").exists()
    assert jobs[1].arm.log.read_text().splitlines()[-1].startswith("no step was saved before the time was over")
    end_of_time(jobs, tmp_path, saves="8")
    assert (tmp_path / "asked").exists()


def test_a_run_that_is_requeued_has_the_time_to_save(jobs: list[Job], tmp_path: Path) -> None:
    (text,) = slurm.scripts(jobs, tmp_path, slurm.Request(), None)
    (tmp_path / "batch.sh").write_text(text)
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "1"}
    with subprocess.Popen(["bash", tmp_path / "batch.sh"], env=environment, start_new_session=True) as process:
        wait_for(lambda: jobs[1].arm.log.is_file() and "waiting" in jobs[1].arm.log.read_text(), 60)
        os.killpg(process.pid, signal.SIGTERM)  # SLURM signals all processes of a job that it takes away
        assert process.wait(timeout=60) == 143
    assert jobs[1].arm.log.read_text().splitlines()[-1] == "saved"
    assert jobs[1].arm.exit_code() == 143
    assert jobs[1].arm.state == "missing"
    assert not (tmp_path / "asked").exists()  # SLURM itself does that


def end_of_time(jobs: list[Job], directory: Path, saves: str) -> None:
    """Runs the second job until SLURM sends SIGUSR1 to the shell alone, as it does for --signal=B:USR1@120."""
    (text,) = slurm.scripts(jobs, directory, slurm.Request(time="1:00:00"), None)
    (directory / "batch.sh").write_text(text)
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "77", "SAVES": saves}
    jobs[1].arm.log.unlink(missing_ok=True)
    with subprocess.Popen(["bash", directory / "batch.sh"], env=environment, start_new_session=True) as process:
        wait_for(lambda: jobs[1].arm.log.is_file() and "waiting" in jobs[1].arm.log.read_text(), 60)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=60) == 138


def test_the_script_asks_for_what_is_wanted(jobs: list[Job], tmp_path: Path) -> None:
    request = slurm.Request("long", gpus=2, cpus=8, memory="16G", time="4:00:00", grace=90, options=("account=a b",))
    (text,) = slurm.scripts(jobs, tmp_path, request, 5)
    directives = {line for line in text.splitlines() if line.startswith("#SBATCH")}
    options = ["array=0-1%5", "partition=long", "gpus=2", "cpus-per-task=8", "mem=16G", "time=4:00:00", "requeue"]
    assert {f"#SBATCH --{option}" for option in options} < directives
    assert "#SBATCH --signal=B:USR1@90" in directives
    assert "#SBATCH '--account=a b'" in directives
    assert len(slurm.scripts(jobs * 1001, tmp_path, request, None)) == 3  # 2002 tasks, at most 1000 each


def test_what_is_queued_is_not_submitted_again(jobs: list[Job], tmp_path: Path) -> None:
    executable(tmp_path / "sbatch", f'#!/bin/bash\ncat >> "{tmp_path}/scripts"\necho "41;cluster"\n')
    executable(tmp_path / "squeue", "#!/bin/bash\necho 41_0 RUNNING\necho 41_1 PENDING\necho 9_9 RUNNING\n")
    first = slurm.Slurm(tmp_path, slurm.Request(), None)
    first.submit(jobs)
    standing = first.poll()
    assert standing == Standing(frozenset({jobs[1].arm.name}), frozenset({jobs[0].arm.name}))
    assert "scancel 41" in str(first.advice())
    before = (tmp_path / "scripts").read_text()
    again = slurm.Slurm(tmp_path, slurm.Request(), None)
    again.submit(jobs)
    assert (tmp_path / "scripts").read_text() == before
    assert again.poll() == standing
    # What waits there is to find the experiment file that it was submitted with.
    (tmp_path / "experiment.py").write_bytes(b"config = 1")
    again.check(b"config = 1")
    with pytest.raises(UsageError, match=r"2 runs of .* are in the queue, and the experiment file is no longer what"):
        again.check(b"config = 2")
    executable(tmp_path / "squeue", "#!/bin/bash\n")
    again.check(b"config = 2")
    assert again.poll().over


def test_slurm_that_does_not_answer(jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path / "sbatch", "#!/bin/bash\nexit 1\n")
    executable(tmp_path / "squeue", "#!/bin/bash\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    with pytest.raises(RunError, match="squeue fails: Unable to contact slurm controller"):
        slurm.Slurm(tmp_path, slurm.Request(), None).submit(jobs)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="there is no sbatch here: --launcher slurm needs a machine that submits"):
        slurm.Slurm(tmp_path, slurm.Request(), None)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real SLURM cluster of this machine."""
    if shutil.which("slurmctld") is None or os.geteuid() != 0:
        pytest.skip("no slurmctld, or not root: a cluster is started with Debian's slurm-wlm, by root")
    directory = tmp_path / "cluster"
    subprocess.run([CLUSTER, "start", directory], check=True, timeout=120)
    monkeypatch.setenv("SLURM_CONF", str(directory / "slurm.conf"))
    yield
    subprocess.run(["scancel", "--me"], check=True, timeout=60)
    subprocess.run([CLUSTER, "stop", directory], check=True, timeout=60)


EXPERIMENT = """
from convjax.models import MLP
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=MLP(hidden=(8,)),
    data=DataConfig("digits"),
    optim=OptimConfig(schedule="constant"),
    train=TrainConfig(length="6000 steps", batch_size=20, evaluate_every="6000 steps", log_every=1),
)
axes = {"optim.lr": [0.02, 0.05], "seed": range(2)}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_sweep_of_four_of_which_one_is_requeued_on_a_real_cluster(convjax: Command, tmp_path: Path) -> None:
    (tmp_path / "mlp.py").write_text(EXPERIMENT)
    command = [
        str(Path(sys.executable).parent / "convjax"),
        "sweep",
        "mlp.py",
        "--workdir",
        "swept",
        "--launcher",
        "slurm",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: (tmp_path / "swept/slurm.json").is_file(), 300)
        tasks = json.loads((tmp_path / "swept/slurm.json").read_text())
        name, task = next(iter(tasks.items()))
        metrics = tmp_path / "swept/runs" / name / "metrics.jsonl"
        wait_for(lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") > 100, 300)
        subprocess.run(["scontrol", "requeue", task], check=True, timeout=60)
        stdout, stderr = process.communicate(timeout=900)
    assert process.returncode == 0, (stdout, stderr)
    assert stdout.splitlines()[-1] == "swept: all 4 runs are finished"
    sweep = Sweep.read(tmp_path / "swept")
    assert [arm.state for arm in sweep.runs] == ["finished"] * 4
    (requeued,) = [arm for arm in sweep.runs if "going on from step" in arm.log.read_text()]
    assert requeued.name == name
    assert "SIGTERM: stopping after a checkpoint" in requeued.log.read_text()
    # The right results: those of the same run without SLURM and without a stop.
    lr, seed = (str(requeued.settings[axis]) for axis in ("optim.lr", "seed"))
    alone = ["train", "mlp.py", "--workdir", "alone", "--optim.lr", lr, "--seed", seed]
    assert convjax(*alone, cwd=tmp_path).returncode == 0
    for file in ("result.json", "metrics.jsonl"):
        assert (requeued.directory / file).read_bytes() == (tmp_path / "alone" / file).read_bytes()
