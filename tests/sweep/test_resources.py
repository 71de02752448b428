"""How a machine is divided, and how long that takes."""

from pathlib import Path

import pytest

from convjax.errors import UsageError
from convjax.sweep.estimate import makespan
from convjax.sweep.resources import Machine


@pytest.mark.parametrize(("cores", "jobs"), [(1, 1), (2, 2), (8, 3), (8, 8), (96, 7)])
def test_each_core_goes_to_one_process(cores: int, jobs: int) -> None:
    shares = Machine(tuple(range(cores)), "CUDA_VISIBLE_DEVICES", ()).divide(jobs)
    assert sorted(core for share in shares for core in share.cores) == list(range(cores))
    sizes = [len(share.cores) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert all(share.environment == {} for share in shares)


def test_more_processes_than_cores_share_them_evenly() -> None:
    shares = Machine((4, 5), "CUDA_VISIBLE_DEVICES", ()).divide(5)
    assert [share.cores for share in shares] == [(4,), (5,), (4,), (5,), (4,)]


def test_gpus_are_divided_and_their_memory_where_they_are_shared() -> None:
    machine = Machine(tuple(range(8)), "CUDA_VISIBLE_DEVICES", ("0", "1", "2", "3"))
    assert [share.environment for share in machine.divide(2)] == [
        {"CUDA_VISIBLE_DEVICES": "0,1"},
        {"CUDA_VISIBLE_DEVICES": "2,3"},
    ]
    shared = [share.environment for share in machine.divide(8)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in shared] == ["0", "1", "2", "3"] * 2
    # Two processes on each GPU, that leave a tenth of it.
    assert {each["XLA_PYTHON_CLIENT_MEM_FRACTION"] for each in shared} == {"0.450"}


def test_tpu_chips_cannot_be_shared() -> None:
    machine = Machine((), "TPU_VISIBLE_CHIPS", ("0", "1"))
    assert [share.environment["TPU_VISIBLE_CHIPS"] for share in machine.divide(2)] == ["0", "1"]
    with pytest.raises(UsageError, match="--jobs is 3: it must be at most 2, the chips of this TPU"):
        machine.divide(3)


def test_accelerators_are_found_without_starting_jax(tmp_path: Path) -> None:
    assert Machine.here(tmp_path, {}).accelerators == ()
    for name in ("0000:07:00.0", "0000:0a:00.0"):
        (tmp_path / "proc/driver/nvidia/gpus" / name).mkdir(parents=True)
    assert Machine.here(tmp_path, {}).accelerators == ("0", "1")
    # What the user, or a cluster, allows is divided, and nothing else.
    assert Machine.here(tmp_path, {"CUDA_VISIBLE_DEVICES": "1,GPU-8f3a"}).accelerators == ("1", "GPU-8f3a")
    assert Machine.here(tmp_path, {"CUDA_VISIBLE_DEVICES": ""}).accelerators == ()
    assert Machine.here(tmp_path, {"JAX_PLATFORMS": "cpu"}).accelerators == ()


def test_the_time_of_a_sweep_is_that_of_its_last_process() -> None:
    assert makespan([5.0, 1.0, 1.0, 1.0], 1) == 8.0
    assert makespan([5.0, 1.0, 1.0, 1.0], 2) == 5.0
    assert makespan([1.0, 1.0, 1.0, 5.0], 2) == 6.0  # begun when one of the first two was done
    assert makespan([], 3) == 0.0
