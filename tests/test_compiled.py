"""Compiled programs that are kept: the same numbers as without, whatever has become of them."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import numpy as np
import pytest
from jax._src import compilation_cache, config
from real_command import Command

from convjax import compiled
from convjax.compiled import Programs
from convjax.errors import UsageError

CONVOLUTIONS = """
import flax.linen as nn
from convjax.train.config import Config, DataConfig, TrainConfig


class Small(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(4, (3, 3))(images)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(nn.Conv(8, (3, 3))(x)))
        return nn.Dense(10)(x.mean((1, 2)))


config = Config(
    model=Small(),
    data=DataConfig("digits", validation=0.5),
    train=TrainConfig(length="6 steps", batch_size=64, evaluate_every="3 steps", log_every=1),
)
"""


@pytest.fixture
def fresh() -> Iterator[None]:
    """JAX without its cache, before and after."""
    compilation_cache.reset_cache()
    seconds = config.persistent_cache_min_compile_time_secs.value
    yield
    compilation_cache.reset_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


def bits(run: Path) -> tuple[str, Any, Any]:
    """Returns all of a run that must not depend on where its programs come from."""
    record = json.loads((run / "checkpoints" / "6" / "record" / "metadata").read_text())
    return (run / "metrics.jsonl").read_text(), record["arrays"], json.loads((run / "result.json").read_text())


def programs(caches: Path) -> dict[Path, tuple[int, bytes]]:
    """Returns inode and content of what is kept; an inode is another one after a file was written anew."""
    return {f: (f.stat().st_ino, f.read_bytes()) for f in caches.rglob("*") if f.is_file()}


def test_a_run_from_kept_programs_has_the_same_bits(convjax: Command, tmp_path: Path) -> None:
    file, caches = tmp_path / "small.py", tmp_path / "caches"
    file.write_text(CONVOLUTIONS)

    def train(name: str, *flags: str, **environment: str) -> tuple[str, Any, Any]:
        # Also what compiles quickly is kept: else it would depend on what the machine does besides.
        environment |= {"XDG_CACHE_HOME": str(caches), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        done = convjax("train", file, "--workdir", tmp_path / name, *flags, **environment)
        assert done.returncode == 0, done.stderr
        assert "cache" not in done.stderr, "JAX warns of entries that it cannot read"
        return bits(tmp_path / name)

    expected = train("off", CONVJAX_COMPILATION_CACHE="off")
    assert not programs(caches)
    assert train("first") == expected
    kept = programs(caches)
    # The training step, the evaluation and the initial state at least.
    assert len(kept) >= 3
    assert train("second") == expected
    assert programs(caches) == kept, "something was compiled again"
    assert train("another", "--seed", "1") != expected
    assert programs(caches) == kept, "a seed has a program of its own"
    # Cut off at different places, as a crash of the machine or a copy that was broken off would leave them.
    for i, (path, (_, content)) in enumerate(sorted(kept.items())):
        path.write_bytes(content[: len(content) * i // len(kept)])
    assert train("third") == expected
    mended = programs(caches)
    assert mended.keys() == kept.keys()
    assert all(mended[path][0] != inode for path, (inode, _) in kept.items())


def test_what_is_damaged_is_not_there_and_is_put_in_place_again(tmp_path: Path) -> None:
    cache = Programs(tmp_path)
    assert cache.get("step") is None
    cache.put("step", b"machine code")
    assert cache.get("step") == b"machine code"
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:5], whole[:-1], whole + b"x", whole[:-1] + b"E"):
        file.write_bytes(damaged)
        assert cache.get("step") is None
    cache.put("step", b"machine code")
    assert file.read_bytes() == whole


def test_what_has_not_been_used_for_longest_goes_first(tmp_path: Path) -> None:
    other = Programs(tmp_path / "other", largest=3000)
    cache = Programs(tmp_path / "own", largest=3000)
    for directory in ("own", "other"):
        (tmp_path / directory).mkdir()
    other.put("a", bytes(900))
    (tmp_path / "own" / "left-by-a-killed-process").write_bytes(bytes(900))
    cache.put("b", bytes(900))
    for age, path in enumerate(reversed([*(tmp_path / "other").iterdir(), *sorted((tmp_path / "own").iterdir())])):
        os.utime(path, (1e9 + age, 1e9 + age))
    assert other.get("a")  # used now
    cache.put("c", bytes(900))
    cache.put("d", bytes(900))
    assert [bool(other.get("a")), bool(cache.get("b")), bool(cache.get("c")), bool(cache.get("d"))] == [1, 0, 1, 1]
    assert not (tmp_path / "own" / "left-by-a-killed-process").exists()
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) <= 3000


def test_many_write_and_read_at_once(tmp_path: Path) -> None:
    value = np.random.default_rng(0).bytes(200_000)
    wrong: list[object] = []

    def work() -> None:
        cache = Programs(tmp_path / "own", largest=500_000)
        for i in range(40):
            cache.put(f"{i % 4}", value)
            if (got := cache.get(f"{i % 4}")) not in (None, value):
                wrong.append(got)

    (tmp_path / "own").mkdir()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(file.stat().st_size for file in (tmp_path / "own").iterdir()) <= 500_000


def test_a_directory_that_cannot_be_written_is_as_if_there_were_none(tmp_path: Path) -> None:
    cache = Programs(tmp_path / "missing")
    cache.put("step", b"machine code")
    assert cache.get("step") is None


@pytest.mark.usefixtures("fresh")
def test_other_machines_and_versions_have_directories_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    here = compiled.place()
    assert compiled.place() == here
    with monkeypatch.context() as changed:
        changed.setattr(jaxlib.version, "__version__", "0.0.1")
        assert compiled.place() != here
    with monkeypatch.context() as changed:
        changed.setattr(compiled, "_processor", lambda: ["flags: fpu avx2"])
        assert compiled.place() != here
    with monkeypatch.context() as changed:
        # XLA divides loops among the cores that it finds when it compiles.
        changed.setattr(os, "sched_getaffinity", lambda _: {*range(99)})
        assert compiled.place() != here
    with monkeypatch.context() as changed:
        changed.setattr(compiled, "_kernels", lambda: ["built anew"])
        assert compiled.place() != here


@pytest.mark.usefixtures("fresh")
def test_programs_are_not_taken_from_a_directory_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled.keep()
    cache = compilation_cache._cache
    assert isinstance(cache, Programs)
    assert cache._path == compiled.place()
    assert compiled.place().stat().st_mode & 0o777 == 0o700
    compilation_cache.reset_cache()
    compiled.place().chmod(0o777)
    assert "others may write" in compiled.refused()
    compiled.keep()
    assert compilation_cache._cache is None


@pytest.mark.usefixtures("fresh")
def test_whoever_asks_for_something_else_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CONVJAX_COMPILATION_CACHE", "off")
    compiled.keep()
    monkeypatch.setenv("CONVJAX_COMPILATION_CACHE", "no")
    with pytest.raises(UsageError, match=r"\$CONVJAX_COMPILATION_CACHE is 'no': it must be off, or not set"):
        compiled.keep()
    monkeypatch.delenv("CONVJAX_COMPILATION_CACHE")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    try:
        compiled.keep()
        assert compiled.refused() == f"by JAX in {tmp_path / 'own'}"
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
    assert compilation_cache._cache is None
    assert not list(tmp_path.iterdir())
