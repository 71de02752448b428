"""What is damaged, foreign or another network's is told, and never restored as if it were right."""

import gc
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.cli import silence_strays
from convjax.digest import array_digest, digest
from convjax.errors import RunError, UsageError
from convjax.train.checkpoint import Checkpoints
from convjax.train.log import Mark
from convjax.train.record import Record, arrays
from convjax.train.state import TrainState

LOG = Mark(0, digest(b""))
SHAPES = {"kernel": (3, 3, 8, 16), "bias": (16,)}


def state(step: int) -> TrainState:
    rng = np.random.default_rng(step)
    params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}
    half = {"mean": jnp.asarray(rng.normal(size=16), jnp.bfloat16)}
    return TrainState(jnp.int32(step), params, half, (), {}, jnp.int32(0), {})


@pytest.fixture(autouse=True)
def stray_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in the commands: reads that outlive a failed restore report nothing."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    silence_strays()
    yield
    time.sleep(0.05)
    gc.collect()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(directory, {}) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step), LOG)
    return directory


@pytest.fixture
def damaged(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def same(restored: Any, expected: Any) -> bool:
    pairs = zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True)
    return all(a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def test_what_is_saved_comes_back(saved: Path) -> None:
    with Checkpoints(saved, {}, read_only=True) as checkpoints:
        for step in (1, 2):
            restored = checkpoints.restore(step, state(0))
            assert same(restored.state, state(step))
            assert (restored.step, restored.log) == (step, LOG)


@pytest.mark.parametrize("seed", [*range(20), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(20, 60))])
def test_a_flipped_bit_is_noticed_or_without_effect(damaged: Path, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    draw = random.Random(seed)
    # Three of four in the arrays' own files, the others in whatever else Orbax writes.
    files = sorted(p for p in (damaged / "2").rglob("*") if p.is_file() and p.stat().st_size)
    payload = [p for p in files if p.parent.name == "d"]
    file = draw.choice(payload if draw.random() < 0.75 else files)
    content = bytearray(file.read_bytes())
    place = draw.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    file.write_bytes(content)
    with Checkpoints(damaged, {}) as checkpoints:
        restored = checkpoints.restore("latest", state(0))
    assert same(restored.state, state(restored.step))
    if restored.step == 1:
        assert "checkpoints/2: the checkpoint is damaged" in caplog.text
        assert "taking the checkpoint of step 1" in caplog.text
        assert (damaged.parent / "damaged" / "2").is_dir()


def test_flips_in_the_arrays_are_noticed(saved: Path, tmp_path: Path) -> None:
    """Orbax itself restores most of them without a word."""
    noticed = 0
    for draw in map(random.Random, range(12)):
        directory = Path(shutil.copytree(saved, tmp_path / "checkpoints"))
        payload = max(
            (p for p in (directory / "2" / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
        )
        content = bytearray(payload.read_bytes())
        # Away from the ends, where formats keep what they check themselves.
        content[draw.randrange(len(content) // 4, len(content) // 2)] ^= 1 << draw.randrange(8)
        payload.write_bytes(content)
        with Checkpoints(directory, {}, read_only=True) as checkpoints, pytest.raises(RunError, match="is damaged"):
            checkpoints.restore(2, state(0))
        noticed += 1
        shutil.rmtree(directory)
    assert noticed == 12


@pytest.mark.parametrize("kind", ["missing file", "missing directory", "truncated", "empty", "foreign", "misnamed"])
def test_damage_falls_back_and_without_a_fallback_fails(
    damaged: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    payload = max((p for p in (damaged / "2").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    if kind == "missing file":
        payload.unlink()
    elif kind == "missing directory":
        shutil.rmtree(damaged / "2" / "state")
    elif kind == "truncated":
        payload.write_bytes(payload.read_bytes()[:100])
    elif kind == "empty":
        shutil.rmtree(damaged / "2")
        (damaged / "2").mkdir()
    elif kind == "foreign":
        shutil.rmtree(damaged / "2")
        (damaged / "2").mkdir()
        (damaged / "2" / "weights.txt").write_text("mine")
    else:
        shutil.rmtree(damaged / "2")
        shutil.copytree(damaged / "1", damaged / "2")
    with Checkpoints(damaged, {}, read_only=True) as checkpoints:
        with pytest.raises(RunError, match=r"checkpoints/2: the checkpoint is damaged.*no other to go back to"):
            checkpoints.restore(2, state(0))
        assert checkpoints.restore("latest", state(0)).step == 1
        assert checkpoints.restore_before(3, state(0)) is not None
    assert "checkpoints/2: the checkpoint is damaged" in caplog.text
    assert (damaged / "2").is_dir(), "reading moves nothing"
    shutil.rmtree(damaged / "1")
    with Checkpoints(damaged, {}) as checkpoints, pytest.raises(RunError, match="no other to go back to"):
        checkpoints.restore("latest", state(0))


def test_files_that_are_no_checkpoints_are_left_alone(damaged: Path) -> None:
    (damaged / "notes.txt").write_text("mine")
    (damaged / "plots").mkdir()
    (damaged / "12").write_text("a file, no directory")
    with Checkpoints(damaged, {}) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        checkpoints.save(state(3), LOG)
    assert (damaged / "notes.txt").read_text() == "mine"
    assert (damaged / "plots").is_dir()
    with Checkpoints(damaged, {}, read_only=True) as checkpoints:
        assert checkpoints.restore("latest", state(0)).step == 3


def test_a_step_whose_checkpoint_was_damaged_is_saved_again(damaged: Path) -> None:
    shutil.rmtree(damaged / "2" / "state")
    with Checkpoints(damaged, {}) as checkpoints:
        assert checkpoints.restore("latest", state(0)).step == 1
        checkpoints.save(state(2), LOG)
        checkpoints.wait()
        assert same(checkpoints.restore("latest", state(0)).state, state(2))
    assert (damaged.parent / "damaged" / "2").is_dir()


def test_the_best_falls_back_by_accuracy(damaged: Path) -> None:
    with Checkpoints(damaged, {1: 0.5, 2: 0.9}) as checkpoints:
        checkpoints.save(state(3), LOG)
    shutil.rmtree(damaged / "2" / "state")
    with Checkpoints(damaged, {1: 0.5, 2: 0.9, 3: 0.4}, read_only=True) as checkpoints:
        assert checkpoints.candidates("best") == [2, 3]
        assert checkpoints.restore("best", state(0)).step == 3


def test_another_network_is_named_by_path(saved: Path) -> None:
    other = state(0).replace(params={"kernel": jnp.zeros((3, 3, 8, 17)), "bias": jnp.zeros(16)})
    half = state(0).replace(batch_stats={"mean": jnp.zeros(16)})
    with Checkpoints(saved, {}, read_only=True) as checkpoints:
        with pytest.raises(
            RunError, match=r"params/kernel is float32\[3, 3, 8, 16\] there and float32\[3, 3, 8, 17\] in"
        ):
            checkpoints.restore("latest", other)
        # Orbax would cast it silently.
        with pytest.raises(RunError, match=r"batch_stats/mean is bfloat16\[16\] there and float32\[16\] in this one"):
            checkpoints.restore("latest", half)


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "c", {}) as checkpoints:
        with pytest.raises(UsageError, match="no checkpoint yet"):
            checkpoints.restore("latest", state(0))
        assert checkpoints.restore_before(5, state(0)) is None


def test_a_digest_is_of_the_bytes() -> None:
    # RFC 7693's hash with 16 bytes of output; the value is that of coreutils: printf abc | b2sum -l 128.
    assert digest(b"abc") == "cf4ab791c62b8d2b2109c90275287816"
    assert array_digest(np.frombuffer(b"abc", np.uint8)) == digest(b"abc")
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert array_digest(transposed) == digest(transposed.tobytes())
    # Zeros of both signs compare equal, and no NaN does.
    assert array_digest(np.array([0.0], np.float32)) != array_digest(np.array([-0.0], np.float32))
    assert array_digest(np.array([np.nan], np.float32)) == array_digest(np.array([np.nan], np.float32))


def test_a_record_that_was_changed_is_refused() -> None:
    content = Record(3, arrays(state(3)), LOG).to_json()
    assert Record.from_json(content) == Record(3, arrays(state(3)), LOG)
    for key, value in (("step", 4), ("digest", "0" * 32), ("log", {"bytes": 1, "digest": LOG.digest})):
        with pytest.raises(ValueError, match="not what was saved"):
            Record.from_json({**content, key: value})
    assert Record.from_json(content).changed(state(4)) == "step"
