"""What happens to a run that is stopped, killed, starved of disk or changed, with the real command."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import crashtest
import pytest
from real_command import Command

# An end that no test waits for.
LONG = """
from convjax.models import MLP, CifarResNet
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model={model},
    data=DataConfig("digits", validation=0.5),
    optim=OptimConfig(schedule="constant"),
    train=TrainConfig(length="100000 steps", batch_size=128, evaluate_every="1000 epochs", log_every=1),
)
"""
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 138}


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A run whose steps take a millisecond, and are soon compiled."""
    (tmp_path / "long.py").write_text(LONG.format(model="MLP(hidden=(16,))"))
    return tmp_path / "long.py"


@pytest.fixture
def compiled_long(tmp_path: Path) -> Path:
    """A run that takes seconds to compile its steps and its evaluation."""
    (tmp_path / "long.py").write_text(LONG.format(model="CifarResNet(depth=8, width=8)"))
    return tmp_path / "long.py"


def start(file: Path, *flags: str) -> "subprocess.Popen[str]":
    command = [str(Path(sys.executable).parent / "convjax"), "train", str(file)]
    command += ["--workdir", str(file.parent / "run"), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def logged(run: Path) -> int:
    """Returns how many lines of metrics there are."""
    return (run / "metrics.jsonl").read_bytes().count(b"\n") if (run / "metrics.jsonl").is_file() else 0


@pytest.mark.parametrize("received", CODES)
def test_a_signal_saves_and_tells_how_to_go_on(long: Path, received: signal.Signals) -> None:
    run = long.parent / "run"
    with start(long) as process:
        wait_for(lambda: logged(run) >= 5, process)
        process.send_signal(received)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == CODES[received]
    first, last = stderr.splitlines()
    assert first == f"convjax: {received.name}: stopping after a checkpoint; once more stops at once"
    told = re.fullmatch(
        rf"convjax: stopped by {received.name} after step (\d+), which is saved; go on with: "
        rf"(convjax train {re.escape(str(long))} --workdir {re.escape(str(run))})",
        last,
    )
    assert told, last
    # The checkpoint is whole, and nothing was logged beyond it.
    step = int(told[1])
    assert [p.name for p in (run / "checkpoints").iterdir()] == [str(step)]
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == step
    # The printed command goes on from there.
    with start(long) as process:
        wait_for(lambda: logged(run) > step, process)
        process.send_signal(received)
        stdout, _ = process.communicate(timeout=120)
    assert f"going on from step {step} of 100000" in stdout
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > step


def test_a_second_signal_stops_at_once(long: Path) -> None:
    run = long.parent / "run"
    with start(long) as process:
        wait_for(lambda: logged(run) >= 5, process)
        # Held while both arrive, so that no checkpoint is saved in between.
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode in (130, 143)
    assert "at once, what was done since the last checkpoint is lost; go on with: convjax train" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("moment", ["imports", "data and compilation", "evaluation"])
def test_a_signal_before_or_after_training_stops_at_once(compiled_long: Path, moment: str) -> None:
    long, run = compiled_long, compiled_long.parent / "run"
    flags = ["--train.length", "12 steps", "--data.validation", "0"] if moment == "evaluation" else []
    with start(long, *flags) as process:
        if moment == "imports":
            time.sleep(0.5)
        elif moment == "evaluation":
            wait_for(lambda: logged(run) >= 12, process)
        else:
            wait_for(lambda: (run / "config.json").is_file(), process)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, stderr = process.communicate(timeout=120)
    if moment == "evaluation" and process.returncode == 0:
        pytest.fail("the run was over before the signal came")
    assert process.returncode == 143
    assert time.monotonic() - began < 60
    assert "go on with: convjax train" in stderr
    assert "Traceback" not in stderr
    done = start(long, "--train.length", "12 steps", "--data.validation", "0") if moment == "evaluation" else None
    if done is not None:
        with done:
            stdout, stderr = done.communicate(timeout=120)
        assert done.returncode == 0, stderr
        assert "test accuracy" in stdout


def test_killed_runs_end_in_the_same_bits(tmp_path: Path) -> None:
    """A handful of what `make crashtest` does at length: one kill in each third of the time a run takes."""
    variant, steps = crashtest.VARIANTS[0], 60
    reference, seconds = crashtest.undisturbed(variant, steps, tmp_path)
    experiment = crashtest.write_experiment(variant, steps, tmp_path)
    kills = [crashtest.kill_after(part * seconds, experiment, tmp_path / "killed") for part in (0.3, 0.6, 0.95, 0.9)]
    assert sum(kill is not None for kill in kills) >= 2
    while crashtest.kill_after(300, experiment, tmp_path / "killed") is not None:
        pass
    assert crashtest.bits(tmp_path / "killed") == reference


def test_the_directory_of_a_run_killed_while_it_was_made_is_taken(
    convjax: Command, experiment: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("lock", "experiment.py", ".environment.json.tmp", "environment.json", ".config.json.tmp"):
        (run / name).write_text("")
    (run / "processes").mkdir()
    done = convjax("train", experiment, "--workdir", run)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("limit", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_a_full_disk_leaves_what_was_saved(trained: Path, tmp_path: Path, limit: int) -> None:
    """A limit on the size of files, in KiB, stands for the full disk: writing beyond it fails as it does there."""
    file, run = tmp_path / "wide.py", tmp_path / "run"
    file.write_text(
        (trained / "experiment.py")
        .read_text()
        .replace("hidden=(16,)", "hidden=(512, 512)")
        .replace("TrainConfig(", "TrainConfig(checkpoint_every='2 steps', ")
    )
    command = [str(Path(sys.executable).parent / "convjax"), "train", str(file), "--workdir", str(run)]
    whole = subprocess.run(
        [*command, "--workdir", str(tmp_path / "whole")], capture_output=True, text=True, timeout=300
    )
    assert whole.returncode == 0, whole.stderr
    # First so far that there is a checkpoint to lose.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: (run / "checkpoints" / "4").is_dir(), process)
        process.kill()
        process.communicate()
    kept = sorted(p.name for p in (run / "checkpoints").iterdir() if p.name.isdecimal())

    limited = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash", *command]
    starved = subprocess.run(limited, capture_output=True, text=True, timeout=300)
    assert starved.returncode == 1, (starved.stdout, starved.stderr)
    message = starved.stderr.splitlines()
    assert len(message) == 1
    assert str(run) in message[0]
    assert "File too large" in message[0] or "a checkpoint cannot be saved" in message[0]
    assert set(kept) <= {p.name for p in (run / "checkpoints").iterdir()}
    # With room again the run goes on, to the same bits.
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert crashtest.bits(run) == crashtest.bits(tmp_path / "whole")


def test_writes_that_outlive_a_failed_save_are_not_told_twice() -> None:
    """Orbax writes arrays in tasks; one failure ends the save, and asyncio reports the others when they are deleted."""
    program = """
import asyncio, convjax.cli
{silence}
async def write(): raise ValueError("File too large")
async def save():
    tasks = [asyncio.ensure_future(write()) for _ in range(3)]
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_exception_handler({{"message": "another matter"}})
asyncio.run(save())
"""

    def told(silence: str) -> str:
        command = [sys.executable, "-c", program.format(silence=silence)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stderr

    assert told("").count("exception was never retrieved") == 3
    assert told("convjax.cli.silence_strays()") == "another matter\n"


def test_a_directory_that_cannot_be_written_is_named(convjax: Command, experiment: Path) -> None:
    done = convjax("train", experiment, "--workdir", "/proc/run")
    assert done.returncode == 2
    assert "/proc" in done.stderr
    assert "take another --workdir" in done.stderr


def test_a_second_process_is_refused_and_looking_is_not(long: Path, convjax: Command) -> None:
    run = long.parent / "run"
    saving = ("--train.checkpoint-every", "2 steps", "--train.keep", "100000")  # the second one stays
    with start(long, *saving) as process:
        wait_for(lambda: (run / "checkpoints" / "2").is_dir(), process)
        second = convjax("train", long, "--workdir", run, *saving)
        looked = convjax("replay", run, "--step", "3", cwd=long.parent)
        process.kill()
        process.communicate()
    assert second.returncode == 2
    assert re.search(rf"is being written by process {process.pid} on host \S+: wait for it", second.stderr)
    assert looked.returncode == 0, looked.stderr
    # The lock of the killed process is taken over.
    with start(long, *saving) as process:
        wait_for(lambda: json.loads((run / "lock").read_text() or "{}").get("process") == process.pid, process)
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("flags", "listed"),
    [
        (["--optim.lr", "0.2", "--seed", "3"], ["optim.lr: 0.1 there, 0.2 now", "seed: 0 there, 3 now"]),
        (["--data.feed", "streamed"], ["data.feed: 'resident' there, 'streamed' now"]),
        (["--train.evaluate-every", "5 steps"], ["train.evaluate_every: '10 steps' there, '5 steps' now"]),
        (["--train.length", "30 steps"], ["train.length: '20 steps' there", "schedule cosine depends on the length"]),
        (["--train.length", "10 steps"], ["train.length: '20 steps' there", "has done 20 steps, more than the 10"]),
        (["--train.ema", "0.9"], ["train.ema: 0.0 there, 0.9 now"]),
    ],
)
def test_changed_science_is_refused_field_by_field(
    convjax: Command, experiment: Path, trained: Path, flags: list[str], listed: list[str]
) -> None:
    before = (trained / "config.json").read_bytes()
    done = convjax("train", experiment, "--workdir", trained, *flags)
    assert done.returncode == 2
    for part in listed:
        assert part in done.stderr
    assert (trained / "config.json").read_bytes() == before


def test_changes_that_leave_the_numbers_are_allowed_and_logged(
    convjax: Command, experiment: Path, tmp_path: Path
) -> None:
    short, whole = tmp_path / "short", tmp_path / "whole"
    constant = ["--optim.schedule", "constant"]
    longer = [*constant, "--train.length", "40 steps", "--train.checkpoint-every", "4 steps"]
    for workdir, flags in ((short, constant), (whole, longer)):
        done = convjax("train", experiment, "--workdir", workdir, *flags)
        assert done.returncode == 0, done.stderr
    done = convjax("train", experiment, "--workdir", short, *longer)
    assert done.returncode == 0, done.stderr
    assert "warning: train.length is '40 steps' from here on; it was '20 steps'" in done.stderr
    assert "warning: train.checkpoint_every is '4 steps' from here on; it was None" in done.stderr
    assert crashtest.bits(short) == crashtest.bits(whole)
    resumed = json.loads((short / "environment.json").read_text())["resumed"]
    assert [(entry["step"], entry["config"]["train.length"]) for entry in resumed] == [(20, ["20 steps", "40 steps"])]
    assert json.loads((short / "config.json").read_text())["train"]["length"] == "40 steps"


def test_a_lengthened_run_that_is_interrupted_goes_on(convjax: Command, experiment: Path, tmp_path: Path) -> None:
    constant = ["--optim.schedule", "constant", "--train.checkpoint-every", "1 steps"]
    command = ["train", experiment, "--workdir", tmp_path / "run", *constant]
    assert convjax(*command).returncode == 0
    # As if it had been killed just after it had begun to go on.
    longer = [*command, "--train.length", "40 steps"]
    with subprocess.Popen(
        [str(Path(sys.executable).parent / "convjax"), *map(str, longer)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        run = tmp_path / "run"
        wait_for(lambda: json.loads((run / "config.json").read_text())["train"]["length"] == "40 steps", process)
        assert not (run / "result.json").exists()
        process.kill()
        process.communicate()
    done = convjax(*longer)
    assert done.returncode == 0, done.stderr
    assert "step 40/40" in done.stdout


OWN = """import flax.linen as nn
from convjax.train.config import Config, TrainConfig

class Linear(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(10)(images.reshape(images.shape[0], -1))

config = Config(model=Linear(), train=TrainConfig(length='4 steps'))
"""


def test_changed_code_of_the_experiments_model_is_refused(convjax: Command, tmp_path: Path) -> None:
    file, run = tmp_path / "own.py", tmp_path / "run"
    file.write_text(OWN)
    assert convjax("train", file, "--workdir", run).returncode == 0
    file.write_text("# A comment changes nothing.\n" + OWN.replace("(10)", "( 10 )"))
    assert ast.dump(ast.parse(file.read_text())) == ast.dump(ast.parse(OWN))
    assert convjax("train", file, "--workdir", run).returncode == 0
    file.write_text(OWN.replace("nn.Dense(10)", "2 * nn.Dense(10)"))
    done = convjax("train", file, "--workdir", run)
    assert done.returncode == 2
    assert "holds a run of other code" in done.stderr
    assert "own.py" in done.stderr
    # Also where the length changes with it; the configuration's own line is compared by its fields instead.
    longer = OWN.replace("4 steps'", "8 steps', log_every=1").replace("TrainConfig(", "TrainConfig(")
    constant = longer.replace("config = Config(", "config = Config(optim=OptimConfig(schedule='constant'), ").replace(
        "import Config,", "import Config, OptimConfig,"
    )
    file.write_text(constant.replace("nn.Dense(10)", "2 * nn.Dense(10)"))
    assert "holds a run of other code" in convjax("train", file, "--workdir", run).stderr


def test_the_length_in_the_file_may_change(convjax: Command, tmp_path: Path) -> None:
    file, run = tmp_path / "own.py", tmp_path / "run"
    constant = OWN.replace("import Config,", "import Config, OptimConfig,").replace(
        "config = Config(", "config = Config(optim=OptimConfig(schedule='constant'), "
    )
    constant = constant.replace("4 steps'", "4 steps', evaluate_every='4 steps'")
    file.write_text(constant)
    assert convjax("train", file, "--workdir", run).returncode == 0
    file.write_text(constant.replace("length='4 steps'", "length='8 steps', log_every=1"))
    for _ in range(2):
        done = convjax("train", file, "--workdir", run)
        assert done.returncode == 0, done.stderr
    assert (run / "experiment.py").read_text() == file.read_text()


def test_another_environment_is_told_and_logged(
    convjax: Command, experiment: Path, trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "result.json").unlink()
    environment = json.loads((run / "environment.json").read_text())
    environment["packages"]["jaxlib"] = "0.0.1"
    (run / "environment.json").write_text(json.dumps(environment))
    done = convjax("train", experiment, "--workdir", run)
    assert done.returncode == 0, done.stderr
    assert "its numbers may differ in the last bits" in done.stderr
    assert re.search(r"packages\.jaxlib: 0\.0\.1 before, 0\.\d+\.\d+ now", done.stderr)
    # Against the last process, not the first: told once.
    (run / "result.json").unlink()
    assert "last bits" not in convjax("train", experiment, "--workdir", run).stderr


def test_a_run_knows_where_it_comes_from(trained: Path, experiment: Path) -> None:
    import importlib.metadata
    import platform

    import jax

    environment = json.loads((trained / "environment.json").read_text())
    assert environment["command"][1:] == ["train", str(experiment), "--workdir", str(trained)]
    assert environment["packages"]["jax"] == importlib.metadata.version("jax")
    assert environment["jaxlib"] == importlib.metadata.version("jaxlib")
    assert environment["python"] == platform.python_version()
    assert environment["machine"]["devices"] == [f"{d.platform}: {d.device_kind}" for d in jax.devices()]
    assert environment["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert environment["variables"]["JAX_PLATFORMS"] == "cpu"
    data = json.loads((trained / "data.json").read_text())
    assert (data["name"], data["version"]) == ("digits", "1.0.0")
    assert set(data["fingerprint"]) == {"train", "validation", "test"}


def test_the_commit_and_what_differs_from_it_are_kept(convjax: Command, experiment: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    shutil.copy(experiment, repository / "mine.py")
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "mine.py"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    with (repository / "mine.py").open("a") as file:
        file.write("# changed\n")
    (repository / "new.txt").write_text("")
    done = convjax("train", repository / "mine.py", "--workdir", tmp_path / "run", "--train.length", "2 steps")
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "run" / "environment.json").read_text())["code"]["experiment_git"]
    assert kept["commit"] == commit
    assert "+# changed\n" in kept["diff"]
    assert kept["untracked"] == ["new.txt"]


def test_diff_shows_configuration_code_and_result(
    convjax: Command, experiment: Path, trained: Path, tmp_path: Path
) -> None:
    other, run = tmp_path / "other.py", tmp_path / "run"
    other.write_text(experiment.read_text().replace("hidden=(16,)", "hidden=(8,)"))
    assert convjax("train", other, "--workdir", run, "--optim.lr", "0.05").returncode == 0
    done = convjax("diff", trained, run)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["optim.lr", "0.1", "0.05"] in rows
    assert ["model.hidden", "[16]", "[8]"] in rows
    assert "data: the same" in done.stdout
    assert "-    model=MLP(hidden=(16,))," in done.stdout
    assert "+    model=MLP(hidden=(8,))," in done.stdout
    assert "test.accuracy" in done.stdout
    assert json.loads(convjax("diff", trained, run, "--json").stdout)["configuration"] == {
        "model.hidden": [[16], [8]],
        "optim.lr": [0.1, 0.05],
    }
    same = convjax("diff", trained, trained)
    assert same.stdout.splitlines() == [
        f"{part}: the same" for part in ("configuration", "data", "weights", "code", "environment", "result")
    ]


def test_replay_prints_the_logged_loss(convjax: Command, trained: Path, tmp_path: Path) -> None:
    line = next(
        json.loads(text) for text in (trained / "metrics.jsonl").read_text().splitlines() if '"step": 15' in text
    )
    done = convjax("replay", trained, "--step", "15", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    row = next(text.split() for text in done.stdout.splitlines() if text.split()[:1] == ["loss"])
    assert row == ["loss", repr(line["train.loss"]), f"{line['train.loss']!r},", "the", "same", "bits"]
    assert "taken again from the checkpoint of step 10" in done.stdout
    assert (tmp_path / "tiny-step-15.png").stat().st_size > 1000
    found = json.loads(convjax("replay", trained, "--step", "15", "--json", cwd=tmp_path).stdout)
    assert len(found["ids"]) == len(found["labels"]) == 50
    assert found["metrics"]["loss"] == line["train.loss"]


def test_replay_fails_where_the_log_says_otherwise(convjax: Command, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    changed = [json.loads(line) for line in lines]
    changed[3]["train.loss"] += 1e-6
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
    done = convjax("replay", tmp_path / "run", "--step", str(changed[3]["step"]), cwd=tmp_path)
    assert done.returncode == 1
    assert "loss differ" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["replay", "RUN", "--step", "0"], "--step is 0: the run has the steps from 1 to 20"),
        (["replay", "RUN", "--step", "21"], "--step is 21"),
        (["replay", "RUN"], "--step"),
        (["replay", "nowhere", "--step", "1"], "no such directory"),
        (["replay", "RUN", "--step", "1", "--sheet", "/proc/sheet.png"], "/proc/sheet.png cannot be written"),
        (["diff", "RUN", "nowhere"], "nowhere: there is no such directory"),
        (["diff", "RUN"], "RUN_B"),
    ],
)
def test_wrong_usage_of_replay_and_diff(convjax: Command, trained: Path, arguments: list[str], part: str) -> None:
    done = convjax(*(str(trained) if a == "RUN" else a for a in arguments))
    assert done.returncode == 2
    assert part in done.stderr
    assert "Traceback" not in done.stderr
