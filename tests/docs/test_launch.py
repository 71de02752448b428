"""The files of docs/launch: checked by linters and a validator, and run with stand-ins for what is not here."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "docs" / "launch"
TOOLS = Path(sys.executable).parent


def checked(tool: str, *arguments: str | Path) -> None:
    done = subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shell_scripts_have_no_known_mistake() -> None:
    checked("shellcheck", *sorted([*LAUNCH.glob("*.sh"), *(ROOT / "tests" / "slurm").glob("*.sh")]))


def test_the_dockerfile_has_no_known_mistake() -> None:
    checked("hadolint", LAUNCH / "Dockerfile")


def test_the_manifest_is_what_kubernetes_takes(tmp_path: Path) -> None:
    checked("kubernetes-validate", "--strict", LAUNCH / "kubernetes.yaml")
    wrong = (LAUNCH / "kubernetes.yaml").read_text().replace("completionMode", "completionMood")
    (tmp_path / "wrong.yaml").write_text(wrong)
    done = subprocess.run([TOOLS / "kubernetes-validate", "--strict", tmp_path / "wrong.yaml"], capture_output=True)
    assert done.returncode != 0


def test_the_manifest_agrees_with_itself() -> None:
    manifest = (LAUNCH / "kubernetes.yaml").read_text()
    counts = re.findall(r"(?:completions|parallelism): (\d+)|parallel\.processes=(\d+)", manifest)
    assert {count for pair in counts for count in pair if count} == {"2"}
    (port,) = re.findall(r"port: (\d+)", manifest)
    assert f"--parallel.coordinator=convjax-0.convjax:{port}" in manifest


def test_the_flags_of_the_manifest_are_those_of_the_command(tmp_path: Path) -> None:
    from convjax.train.config import ParallelConfig

    given = re.findall(r"--parallel\.(\w+(?:-\w+)*)", (LAUNCH / "kubernetes.yaml").read_text())
    known = {name.replace("_", "-") for name in ParallelConfig.__dataclass_fields__}
    assert set(given) == {"coordinator", "processes", "process-id"} <= known


def stand_in(directory: Path, name: str, script: str) -> None:
    """Writes a command that notes its arguments in a file `calls`, and does something."""
    path = directory / name
    path.write_text(f'#!/bin/bash\necho "{name} $*" >> "{directory}/calls"\n{script}\n')
    path.chmod(0o755)


def start(script: str, directory: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    path = f"{directory}:{os.environ['PATH']}"
    return subprocess.Popen(
        [LAUNCH / script, *arguments],
        env={**os.environ, "PATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def calls(directory: Path) -> list[str]:
    return (directory / "calls").read_text().splitlines()


@pytest.mark.parametrize(("codes", "tries", "code"), [("1 137 0", 3, 0), ("2", 1, 2), ("1 1 1 1", 3, 1), ("0", 1, 0)])
def test_one_machine_starts_again_what_has_crashed(tmp_path: Path, codes: str, tries: int, code: int) -> None:
    body = f'codes=({codes}); exit "${{codes[$(wc -l < "{tmp_path}/calls") - 1]}}"'
    stand_in(tmp_path, "convjax", body)
    process = start("one_machine.sh", tmp_path, "x.py", "--seed", "3", RETRIES="2", PAUSE="0")
    process.communicate(timeout=60)
    assert process.returncode == code
    assert calls(tmp_path) == ["convjax train x.py --seed 3"] * tries


def test_one_machine_passes_a_signal_on_and_waits_for_the_checkpoint(tmp_path: Path) -> None:
    saving = (
        f'trap "sleep 0.5; touch {tmp_path}/saved; exit 143" TERM\ntouch {tmp_path}/ready\nwhile :; do sleep 0.1; done'
    )
    stand_in(tmp_path, "convjax", saving)
    process = start("one_machine.sh", tmp_path, "x.py", PAUSE="0")
    wait_for(tmp_path / "ready")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert (tmp_path / "saved").exists()
    assert len(calls(tmp_path)) == 1


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.05)


@pytest.mark.parametrize(("code", "queued"), [(0, False), (1, False), (2, False), (138, True), (143, True)])
def test_slurm_queues_again_what_was_stopped(tmp_path: Path, code: int, queued: bool) -> None:
    stand_in(tmp_path, "srun", f"exit {code}")
    stand_in(tmp_path, "scontrol", "")
    process = start("slurm.sh", tmp_path, "x.py", "--workdir", "w", SLURM_JOB_ID="17")
    process.communicate(timeout=60)
    assert process.returncode == code
    first, *rest = calls(tmp_path)
    assert first == "srun --kill-on-bad-exit=0 convjax train x.py --workdir w"
    assert rest == (["scontrol requeue 17"] if queued else [])


def test_slurm_outlives_the_signal_that_its_run_is_stopped_by(tmp_path: Path) -> None:
    stand_in(tmp_path, "srun", f"touch {tmp_path}/ready; sleep 1; exit 143")
    stand_in(tmp_path, "scontrol", "")
    process = start("slurm.sh", tmp_path, "x.py", SLURM_JOB_ID="17")
    wait_for(tmp_path / "ready")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert (process.returncode, calls(tmp_path)[1:]) == (143, ["scontrol requeue 17"])


@pytest.mark.parametrize(
    ("hosts", "flags"),
    [
        ("10.0.0.5", ""),
        (
            "unknown:unknown:10.0.0.5,unknown:unknown:10.0.0.6",
            " --parallel.coordinator 10.0.0.5:8476 --parallel.processes 2 --parallel.process-id 1",
        ),
    ],
)
def test_a_tpu_host_finds_the_others_by_its_metadata(tmp_path: Path, hosts: str, flags: str) -> None:
    stand_in(tmp_path, "curl", f'case "$*" in *agent-worker-number) echo 1;; *) echo {hosts};; esac')
    stand_in(tmp_path, "convjax", "exit 143")
    process = start("tpu_worker.sh", tmp_path, "x.py")
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert calls(tmp_path)[-1] == f"convjax train x.py{flags}"


@pytest.mark.parametrize(("queued", "kind"), [("yes", "queued-resources"), ("no", "tpu-vm")])
def test_a_tpu_slice_that_is_taken_back_is_asked_for_again(tmp_path: Path, queued: str, kind: str) -> None:
    trained = f'grep -c tpu_worker "{tmp_path}/calls"'
    gcloud = f'case "$*" in *describe*) echo ACTIVE;; *tpu_worker*) [[ $({trained}) == 2 ]] || exit 143;; esac'
    stand_in(tmp_path, "gcloud", gcloud)
    stand_in(tmp_path, "git", "")
    environment = {"PROJECT": "p", "ZONE": "z", "TYPE": "v4-32", "SHARE": "10.0.0.2:/share", "QUEUED": queued}
    process = start("tpu.sh", tmp_path, "mine", "x.py", "--train.length", "5 epochs", **environment, SPOT="yes")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    made = [line for line in calls(tmp_path) if f"{kind} create mine" in line]
    assert len(made) == len([line for line in calls(tmp_path) if f"{kind} delete mine" in line]) == 2
    assert "--spot" in made[0]
    assert "docs/launch/tpu_worker.sh x.py --train.length 5\\ epochs --workdir /mnt/shared/runs/mine" in "".join(
        calls(tmp_path)
    )


def test_the_page_names_every_file() -> None:
    page = (ROOT / "docs" / "launch.md").read_text()
    files = {path.name for path in LAUNCH.iterdir()} - {"Dockerfile.dockerignore"}
    assert set(re.findall(r"\(launch/([\w.]+)\)", page)) == files
