"""The same step on one device and on eight, in each mode, and in several processes."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from second_of_four import SecondOfFour

from convjax.data import order
from convjax.data.loader import Streamed
from convjax.data.sources import Split
from convjax.errors import UsageError
from convjax.models import MLP
from convjax.train.config import Config, ParallelConfig, TrainConfig
from convjax.train.loss_scale import GROW_AFTER, LARGEST, LossScale
from convjax.train.parallel import Placement

MODES = ("jit", "shard_map", "pmap")
BOUND = 5e-6
"""Largest difference after ten steps, as a share of an array's largest value.

Sums over a batch are taken in another order on eight devices: each rounds by up to 6e-8 of its terms' size, ten
steps with momentum carry that on, and small gradients are differences of large terms. Seen: 2e-6 and less. An error
in what is averaged or drawn shows at 1e-2 and above ("local is not global").
"""


@pytest.mark.long
def test_eight_devices(subtests: pytest.Subtests) -> None:
    """One program computes it all: it takes a minute, and each worker would have to run it anew."""
    program = Path(__file__).with_name("eight_devices.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    for way in (*MODES, "streamed", "shard_optimizer", *(f"stock {mode}" for mode in MODES)):
        with subtests.test("ten steps are those on one device", way=way):
            assert results[way] <= BOUND
    for mode in MODES:
        with subtests.test("accumulated steps on four devices are those on one", mode=mode):
            assert results["accumulated"][mode] <= BOUND
        with subtests.test("with local statistics the modes agree", mode=mode):
            assert results["local"][mode] <= BOUND
    for way in ("dense", "dense local"):
        with subtests.test("statistics that layers share are those of the batch, or of each part", way=way):
            assert results[way] <= BOUND
    with subtests.test("local statistics are what a computation by hand gives"):
        by_hand, moved = results["local by hand"]
        assert by_hand <= BOUND
        assert moved > 1e-2, "the step must move what is compared"
        assert results["local is not global"] > 1e-2
    with subtests.test("micro-batches are the large batch where no statistics are taken over it"):
        assert results["micro-batches without batch norms"] <= BOUND
    assert len(results["frozen"]) == 6
    for way, (kept, moved, far) in results["frozen"].items():
        with subtests.test("what is frozen keeps its bits, the rest is that of one device", way=way):
            assert kept
            assert moved
            assert far <= BOUND or way == "jit, local"
    assert len(results["moved"]) == 27
    for way, same in results["moved"].items():
        with subtests.test("a checkpoint moves to other devices and modes", way=way):
            assert same
    with subtests.test("uneven evaluations are exact on any number of devices"):
        assert results["evaluations"] == [True, True, True]
    for network, counts in results["collectives"].items():
        with subtests.test("nothing is gathered", network=network):
            assert {kind for kind, count in counts.items() if count} == {"all-reduce"}
    with subtests.test("gradients and loss are averaged in one operation"):
        assert results["collectives"]["without batch norms"]["all-reduce"] == 1
        # Forwards mean and variance one after the other, backwards what goes back through both at once.
        assert results["collectives"]["with three batch norms"]["all-reduce"] == 1 + 3 * 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes(
    file: Path, workdir: Path, *flags: str, each: Sequence[Sequence[str]] = ((), ())
) -> list["subprocess.Popen[str]"]:
    """Starts a run of several processes with two devices each; `each` has flags of one process alone."""
    coordinator = f"127.0.0.1:{free_port()}"
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [str(Path(sys.executable).parent / "convjax"), "train", str(file), "--workdir", str(workdir), *flags]
    command += ["--parallel.coordinator", coordinator, "--parallel.processes", str(len(each))]
    return [
        subprocess.Popen(
            [*command, "--parallel.process-id", str(i), *own],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for i, own in enumerate(each)
    ]


EXPERIMENT = """
from convjax.models import MLP
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=MLP(hidden=(16,), dropout=0.1),
    data=DataConfig("digits", feed="streamed"),
    optim=OptimConfig(schedule="constant"),
    train=TrainConfig(length="20 steps", batch_size=48, evaluate_every="10 steps", log_every=5),
)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    return tmp_path / "tiny.py"


def numbers(workdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def alone(file: Path, workdir: Path, devices: int, *flags: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [str(Path(sys.executable).parent / "convjax"), "train", str(file), "--workdir", str(workdir), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


def test_two_processes_of_two_devices_are_one_of_four(file: Path, tmp_path: Path) -> None:
    started = processes(file, tmp_path / "two")
    output = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], output
    # The first process alone prints and writes.
    assert "test accuracy" in output[0][0]
    assert "accuracy" not in output[1][0]
    done = alone(file, tmp_path / "one", 4)
    assert done.returncode == 0, done.stderr
    two, one = numbers(tmp_path / "two"), numbers(tmp_path / "one")
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for a, b in zip(two, one, strict=True):
        assert a == pytest.approx(b, rel=2e-6, abs=1e-9)
    # The run goes on in one process, on three devices and from another mode, to more steps.
    done = alone(
        file,
        tmp_path / "two",
        3,
        "--train.length",
        "30 steps",
        "--parallel.mode",
        "shard_map",
        "--train.log-every",
        "1",
    )
    assert done.returncode == 0, done.stderr
    assert "going on from step 20 of 30" in done.stdout
    assert "parallel.processes is None from here on; it was 2" in done.stderr


def test_slurms_variables_are_enough(file: Path, tmp_path: Path) -> None:
    """What srun sets for two tasks on one node; JAX derives the coordinator's port from the job's number."""
    command = [str(Path(sys.executable).parent / "convjax"), "train", str(file), "--workdir", str(tmp_path / "run")]
    job = {"SLURM_JOB_ID": str(free_port()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    started = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **job, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
        )
        for i in range(2)
    ]
    output = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], output
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["machine"]["processes"] == 2


def test_when_a_process_dies_the_others_end_with_a_message(file: Path, tmp_path: Path) -> None:
    started = processes(file, tmp_path / "run", "--train.length", "1000000 steps")
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "30").is_dir():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in started), [p.communicate() for p in started]
        time.sleep(0.05)
    started[1].kill()
    started[1].communicate()
    began = time.monotonic()
    _, stderr = started[0].communicate(timeout=120)
    assert time.monotonic() - began < 60
    assert started[0].returncode == 1
    # In the midst of a collective operation the broken connection tells; else the silence does.
    gone = "(process 1 of the run has given no sign of life for 20 s|another process of the run has failed or been)"
    assert re.search(f"convjax: failed: {gone}.*; the same commands go on from the last checkpoint", stderr), stderr


def test_all_processes_must_be_given_the_same(file: Path, tmp_path: Path) -> None:
    started = processes(file, tmp_path / "run", each=(["--optim.lr", "0.1"], ["--optim.lr", "0.2"]))
    output = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [2, 2], output
    for _, stderr in output:
        assert "the configuration of process 1 is not that of process 0" in stderr
    assert not (tmp_path / "run").exists()


def test_what_one_process_refuses_ends_all(file: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.write_text("a file, not a directory")
    # The first process has a good directory; the second's cannot be made.
    started = processes(file, tmp_path / "run", each=([], ["--workdir", str(nowhere / "run")]))
    output = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [1, 2], output
    assert "process 1 of the run has failed, its message says why" in output[0][1]
    assert "nowhere is a file" in output[1][1]
    assert not (tmp_path / "run").exists()


def test_each_process_gathers_its_own_rows_alone() -> None:
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    feed = Streamed(Split(images, np.arange(100, dtype=np.int32)), SecondOfFour())
    for number, batch in enumerate(feed.batches(lambda n: order.batch_ids(5, n, 8, 100), 3, 6), start=3):
        expected = order.batch_ids(5, number, 8, 100)[2:4]
        assert np.asarray(batch.ids).tolist() == np.asarray(batch.labels).tolist() == expected.tolist()
        assert np.asarray(batch.images).ravel().tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("parallel", "train", "message"),
    [
        ({"devices": 99}, {}, r"parallel\.devices is 99: there are 1"),
        ({}, {"batch_size": 12, "accumulate": 4}, None),
        ({"devices": 1}, {"batch_size": 13}, None),
    ],
)
def test_what_cannot_be_divided_is_named(parallel: dict[str, Any], train: dict[str, Any], message: str | None) -> None:
    config = Config(model=MLP(), parallel=ParallelConfig(**parallel), train=TrainConfig(**train))
    if message is None:
        assert Placement.of(config).devices == 1
        return
    with pytest.raises(UsageError, match=message):
        Placement.of(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "xmap"}, r"parallel\.mode is 'xmap': it must be one of jit, shard_map, pmap"),
        ({"devices": 0}, r"parallel\.devices is 0: it must be at least 1"),
        (
            {"mode": "pmap", "shard_optimizer": True},
            r"parallel\.shard_optimizer is True: it must be off unless mode is",
        ),
        ({"coordinator": "h:1"}, r"given together with parallel\.processes and parallel\.process_id"),
        ({"coordinator": "h", "processes": 2, "process_id": 0}, r"parallel\.coordinator is h: it must be HOST:PORT"),
        ({"coordinator": "h:1", "processes": 2, "process_id": 2}, r"parallel\.process_id is 2: it must be from 0 to 1"),
    ],
)
def test_wrong_values_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ParallelConfig(**fields)
    with pytest.raises(UsageError, match=r"train\.accumulate is 3: it must be a divisor of train\.batch_size 128"):
        TrainConfig(accumulate=3)


def test_the_loss_scale_halves_and_doubles() -> None:
    scale = LossScale.create(8.0)
    yes, no = jnp.bool_(True), jnp.bool_(False)
    halved = scale.adjust(no, yes)
    assert (float(halved.scale), int(halved.steady), int(halved.overflows)) == (4.0, 0, 1)
    assert int(scale.adjust(no, no).overflows) == 0
    steady = scale.replace(steady=jnp.int32(GROW_AFTER - 1))
    doubled = steady.adjust(yes, no)
    assert (float(doubled.scale), int(doubled.steady)) == (16.0, 0)
    assert float(scale.adjust(yes, no).scale) == 8.0
    assert float(LossScale.create(1.0).adjust(no, yes).scale) == 0.5
    assert float(LossScale.create(2.0**-14).adjust(no, yes).scale) == 2.0**-14
    assert float(steady.replace(scale=jnp.float32(LARGEST)).adjust(yes, no).scale) == LARGEST
    # A loss that is no number is nobody's fault but the network's; nor can the least scale be lowered.
    assert bool(scale.excuses(jnp.float32(1.0)))
    assert not bool(scale.excuses(jnp.float32(jnp.nan)))
    assert bool(LossScale.create(1.0).excuses(jnp.float32(1.0)))
    assert not bool(LossScale.create(2.0**-14).excuses(jnp.float32(1.0)))
