"""The doctor finds what is amiss by looking; here something is."""

from pathlib import Path

import pytest
from real_command import Command

from convjax.inspect import doctor


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
