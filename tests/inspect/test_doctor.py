"""The doctor finds what is amiss by looking; here something is."""

from pathlib import Path

import jax
import pytest
from real_command import Command

from convjax import allocator, compiled
from convjax.inspect import doctor
from convjax.ops import cpu
from convjax.ops.cpu import native


def test_a_sound_machine_is_found_sound(convjax: Command, tmp_path: Path) -> None:
    done = convjax("doctor", "--workdir", tmp_path / "runs", XLA_FLAGS="--xla_force_host_platform_device_count=2")
    assert done.returncode == 0, (done.stdout, done.stderr)
    rows = [line for line in done.stdout.splitlines() if line.strip().startswith(("ok", "!!"))]
    assert all(row.strip().startswith("ok") for row in rows)
    for mode in ("jit", "shard_map", "pmap"):
        assert any(f"one step, {mode}" in row and "on 2 devices" in row for row in rows)
    assert not (tmp_path / "runs").exists()


def test_what_is_missing_is_named_with_what_to_do(convjax: Command) -> None:
    done = convjax("doctor", "--data", "mnist", "--directory", "/nowhere", "--workdir", "/proc/runs")
    assert done.returncode == 1
    assert "not in order: data set mnist, writing to /proc/runs" in done.stderr
    assert "data set mnist: data set 'mnist' is not prepared in /nowhere" in done.stdout
    assert "tfds build mnist" in done.stdout
    assert "take another --workdir" in done.stdout


@pytest.mark.parametrize(("device", "package"), [("nvidiactl", "cuda"), ("accel0", "tpu")])
def test_an_accelerator_that_is_not_used_is_found(tmp_path: Path, device: str, package: str) -> None:
    assert doctor.accelerator(tmp_path).fine
    (tmp_path / device).write_text("")
    finding = doctor.accelerator(tmp_path)
    assert not finding.fine
    assert package in finding.advice


def test_kernels_are_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cpu.VARIABLE, raising=False)
    monkeypatch.setattr(native, "lacks_bfloat16", lambda: True)
    monkeypatch.setattr(native, "unavailable", lambda: "")
    assert doctor.cpu_kernels().found == "native; bfloat16 in float32, for want of AVX-512"
    monkeypatch.setattr(native, "lacks_bfloat16", lambda: False)
    assert doctor.cpu_kernels().found == "native"
    monkeypatch.setattr(native, "unavailable", lambda: "not built: no compiler")
    finding = doctor.cpu_kernels()
    assert finding.found == "pure; native is not built: no compiler"
    assert "pip install -e '.[cpu]'" in finding.advice
    monkeypatch.setenv(cpu.VARIABLE, "off")
    assert doctor.cpu_kernels().found == "off, as $CONVJAX_CPU_KERNELS asks for"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert doctor.cpu_kernels().found == "not used on a gpu"


def test_what_is_kept_between_commands_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    assert doctor.compiled_programs().found.startswith("0, 0.0 MB in ")
    compiled.place().mkdir(mode=0o700, parents=True)
    compiled.Programs(compiled.place()).put("a key", bytes(1_000_000))
    assert doctor.compiled_programs().found == f"1, 1.0 MB in {compiled.place()}"
    monkeypatch.setenv(compiled.VARIABLE, "off")
    assert doctor.compiled_programs().found == "off, as $CONVJAX_COMPILATION_CACHE asks for"
    monkeypatch.setenv(allocator.VARIABLE, "off")
    assert doctor.memory().found == "off, as $CONVJAX_ALLOCATOR asks for"


def test_checks_that_fail_are_told_and_the_others_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no such driver\nmore")

    monkeypatch.setattr(doctor, "build", fails)
    monkeypatch.setattr(doctor, "devices", fails)
    findings = {finding.check: finding for finding in doctor.examine("digits", None, tmp_path)}
    failed = {check for check, finding in findings.items() if not finding.fine}
    assert failed == {"devices", "one step, jit", "one step, shard_map", "one step, pmap"}
    assert findings["devices"].found == "RuntimeError: no such driver"


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "ENOUGH_DISK", 1e18)
    assert not doctor.disk(tmp_path).fine
    assert "make room" in doctor.disk(tmp_path).advice
