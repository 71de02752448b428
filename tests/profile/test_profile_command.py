"""`convjax profile` as a user runs it, and what it is made of."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from real_command import Command

from convjax.data import loader
from convjax.models import MLP
from convjax.profile import look, machine, steps, subject
from convjax.profile.look import Look
from convjax.profile.machine import Machine
from convjax.profile.rows import Cost, rows
from convjax.profile.work import Part, Work
from convjax.train.config import Config, TrainConfig
from convjax.train.parallel import Advance


def test_an_experiment_in_json(convjax: Command, experiment: Path, tmp_path: Path) -> None:
    done = convjax("profile", experiment, "--json", "--steps", "3", "--trace", tmp_path / "t", "--optim.lr", "0.2")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # An MLP on 50 images of 8 x 8: 64 x 16 and 16 x 10 products each; backward the same for the parameters, and those
    # of the second layer for the first layer's activations.
    products = [
        (row["forward"]["multiply_accumulates"], row["backward"]["multiply_accumulates"]) for row in found["layers"]
    ]
    assert [pair for pair in products if any(pair)] == [(50 * 64 * 16, 50 * 64 * 16), (50 * 160, 50 * 320)]
    assert all((row["class"] is None) == (row["layer"] is None) for row in found["layers"])
    assert found["layers"][-1]["layer"] is None
    assert found["step"]["multiply_accumulates"] == 50 * (2 * 64 * 16 + 3 * 160)
    assert {row["part"] for row in found["layers"] if not row["layer"]} >= {"optimizer", "rest"}

    step, machine = found["step"], found["machine"]
    times = [row[way]["seconds"] for row in found["layers"] for way in ("forward", "backward")]
    assert sum(times) + step["idle_seconds"] == pytest.approx(step["traced_seconds"])
    assert 0 < sum(times) < step["traced_seconds"]
    assert step["share_of_peak"] == pytest.approx(
        2 * step["multiply_accumulates"] / step["seconds"] / machine["operations_per_s"]
    )
    assert (found["data"], found["batch_size"], found["image"]) == ("digits", 50, [8, 8, 1])
    waited = found["loop"]["waited_seconds"]
    assert found["loop"]["share_waited"] == pytest.approx(waited / (waited + step["seconds"]))
    assert found["loop"]["verdict"] == ("input-bound" if found["loop"]["share_waited"] >= 0.1 else "compute-bound")
    # The step donates its state: what goes out takes the place of what came in. The data are among the arguments.
    memory = found["memory"]
    assert memory["arguments"] > 1293 * 64
    assert 0 < memory["shared"] <= memory["outputs"]
    assert (
        memory["needed"] == sum(memory[k] for k in ("arguments", "outputs", "temporary", "program")) - memory["shared"]
    )
    assert len(list((tmp_path / "t").rglob("*.xplane.pb"))) == 1
    assert len(list((tmp_path / "t").rglob("perfetto_trace.json.gz"))) == 1


def test_a_model_alone_in_a_table(convjax: Command) -> None:
    done = convjax("profile", "lenet5", "--steps", "1", "--depth", "0", "--train.batch-size", "4")
    assert done.returncode == 0, done.stderr
    assert "a training step on 4 images of 32 x 32 x 1" in done.stdout
    table = done.stdout.splitlines()
    assert any(line.split()[:3] == ["(the", "model)", "LeNet5"] for line in table)
    assert any(line.split()[:1] == ["total"] for line in table)
    assert "not looked at: the images are noise" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["EXPERIMENT|MODEL|RUN"]),
        (["resnet21"], ["resnet21 is neither", "resnet20"]),
        (["lenet5", "--steps", "0"], ["--steps is 0", "at least 1"]),
        (["lenet5", "--parallel.mode", "pmap"], ["parallel.mode is pmap", "jit or shard_map"]),
        (["experiments/digits.py", "--size", "64"], ["--size is for a model alone", "--data.image-size"]),
        (["experiments/digits.py", "--train.batch-size", "5000"], ["train.batch_size is 5000", "at most 1293"]),
        (["lenet5", "--trace", "README.md"], ["--trace is README.md", "directory"]),
    ],
)
def test_wrong_input_is_named(convjax: Command, arguments: list[str], parts: list[str]) -> None:
    done = convjax("profile", *arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    flat = " ".join(done.stderr.replace("│", " ").split())
    assert all(part in flat for part in parts), done.stderr


def small() -> subject.Subject:
    """A perceptron on eight images of noise."""
    return subject.model(Config(MLP(hidden=(4,)), train=TrainConfig(batch_size=8)), (4, 4, 1))


def begun() -> steps.Started:
    given = small()
    return steps.start(given.config, given.data)


def test_a_loader_that_is_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    started = begun()
    feed, late = started.feed, 0.05

    def batches(*given: Any) -> Iterator[Any]:
        for batch in loader.Resident.batches(feed, *given):  # type: ignore[arg-type]
            time.sleep(late)
            yield batch

    monkeypatch.setattr(feed, "batches", batches)
    taken = list(steps.timed(started, 4))
    assert int(taken[-1].state.step) == 4
    assert all(step.waited >= late for step in taken)
    assert all(step.stepped > 0 for step in taken)


def test_on_a_gpu_operations_are_told_apart_by_a_program_that_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    started = begun()
    assert look._told_apart(started) is started
    handed: list[Any] = []

    def advance(*given: Any) -> Advance:
        handed.append(given[-1])
        return Advance(*given)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(look, "Advance", advance)
    apart = look._told_apart(begun())
    assert handed == [{"xla_gpu_enable_command_buffer": ""}]
    # One step: how many batches are thrown away before the next depends on the clock.
    ours, theirs = next(steps.timed(started, 1)), next(steps.timed(apart, 1))
    for x, y in zip(jax.tree.leaves(ours.state), jax.tree.leaves(theirs.state), strict=True):
        np.testing.assert_array_equal(x, y)


def test_on_a_gpu_one_program_is_timed_and_the_other_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Advance] = []

    def timed(run: steps.Started, count: int) -> Iterator[steps.Timed]:
        seen.append(run.advance)
        return steps.timed(run, count)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(look, "timed", timed)
    monkeypatch.setattr(machine, "measure", lambda *_: MACHINE)
    found = look.look(small(), 3, None, lambda _: None)
    first, second = seen
    assert first is not second
    assert 0 < sum(found.times.values()) <= found.traced
    assert found.kernels is None


def test_options_reach_the_compiler() -> None:
    run = begun()
    wrong = Advance(run.placement, run.step, run.feed, run.shapes, {"xla_gpu_enable_command_buffer": "NONSENSE"})
    with pytest.raises(jax.errors.JaxRuntimeError, match="NONSENSE"):
        next(steps.timed(run._replace(advance=wrong), 1))


MACHINE = Machine(peak=200.0, bandwidth=10.0)


def found(waited: float | None = None) -> Look:
    """A step of 5 s on a machine of 200 operations and 10 bytes a second."""
    conv, norm = Part("block/conv", "", "forward"), Part("block/norm", "", "forward")
    back, update = Part("block/conv", "", "backward"), Part(None, "optimizer", "forward")
    return Look(
        kernels=None,
        devices=1,
        machine=MACHINE,
        step=5.0,
        waited=waited,
        traced=6.0,
        kinds={"": "Net", "block": "Block", "block/conv": "Conv", "block/norm": "Norm"},
        works={conv: Work(100, 4), norm: Work(0, 15), back: Work(200, 10), update: Work(0, 5)},
        times={conv: 1.5, norm: 2.0, back: 1.0, update: 1.0},
        memory=None,
    )


def test_the_roofline_by_hand() -> None:
    # 100 multiply-accumulates are 200 operations: one second; 4 bytes take 0.4 s.
    assert Cost.of(Work(100, 4), 1.5, MACHINE) == Cost(100, 4, 1.5, least=1.0, by_memory=0.0)
    assert Cost.of(Work(0, 15), 2.0, MACHINE).bound == "memory"
    (block, optimizer) = rows(found(), depth=1)
    assert (block.layer, block.kind, block.forward) == ("block", "Block", Cost(100, 19, 3.5, 2.5, 1.5))
    assert (block.forward.bound, block.backward.bound, block.both.bound) == ("memory", "arithmetic", "arithmetic")
    assert (optimizer.layer, optimizer.name, optimizer.both) == (None, "optimizer", Cost(0, 5, 1.0, 0.5, 0.5))
    assert [row.layer for row in rows(found(), depth=2)] == ["block/conv", "block/norm", None]
    assert [row.layer for row in rows(found(), depth=0)] == ["", None]
    assert Cost().bound is None


def test_the_step_as_a_whole_by_hand() -> None:
    assert found().idle == 0.5
    assert found().share_of_peak == pytest.approx(2 * 300 / 5.0 / 200)
    assert (found().verdict, found(waited=0.1).verdict) == (None, "compute-bound")
    assert found(waited=0.5).verdict == "compute-bound"  # a share of 0.5 / 5.5
    assert found(waited=0.6).verdict == "input-bound"
