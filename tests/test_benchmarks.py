"""What `make bench` makes of its measurements; the measuring itself takes an hour."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from peers import page  # noqa: E402 - found only now
from peers.cases import SYSTEMS, Case, Device, Precision  # noqa: E402
from peers.epoch import Epoch  # noqa: E402
from peers.measure import Found, Measured  # noqa: E402
from peers.process import Failed, Process  # noqa: E402
from peers.results import Ratio, Result, merged, read, results, write  # noqa: E402

CASE = Case("resnet20", "train", "float32")


def found(**seconds: tuple[float, ...]) -> list[Result]:
    systems = {name.replace("_", " "): Measured(rounds, 10**9, 5.0) for name, rounds in seconds.items()}
    # A step of 2e9 operations on a machine that does 1e10 a second.
    return results(CASE, Found(systems, 1e10), 2e9, "2026-01-01", "a machine")


def test_ratios_are_to_the_faster_of_pytorchs_modes_and_to_stock() -> None:
    native, *_ = found(
        convjax_native=(1.0, 2.0, 3.0),
        linen=(6.0, 8.0, 6.0),
        torch_eager=(9.0, 9.0, 9.0),
        torch_compile=(4.0, 2.0, 6.0),
    )
    assert native.ratio_to_torch == Ratio(2.0, 1.0, 4.0)
    assert native.ratio_to_linen == Ratio(3.0, 2.0, 6.0)
    assert (native.median_s, native.images_per_s, native.share_of_peak) == (2.0, 64.0, 0.1)


def test_a_part_takes_the_place_of_what_was_there_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "performance.json"
    assert read(path) == []
    old = found(convjax_native=(1.0,), linen=(6.0,))
    new = [dataclasses.replace(r, date="2026-02-02") for r in found(linen=(5.0,))]
    write(path, old)
    write(path, merged(read(path), new))
    assert read(path) == [old[0], new[0]]
    kept = {"network", "task", "precision", "system", "median_s", "images_per_s", "peak_memory_bytes", "share_of_peak"}
    assert all(kept <= fields.keys() for fields in json.loads(path.read_text()))


def test_tables_stand_between_the_marks_of_the_page() -> None:
    every = found(convjax_native=(1.0,), convjax_pure=(3.0,), linen=(6.0,), torch_eager=(2.0,))
    text = page.tables(every, [Epoch("linen", 10.0, 9.0, 11.0, 4.0, "2026-01-02", "a machine")])
    assert "| resnet20 (128) | 128.0 | 2.00 (2.00 to 2.00), eager | 6.00 (6.00 to 6.00) | 2.00 (2.00 to 2.00) |" in text
    assert "| linen | 10.00 (9.00 to 11.00) | 6000 | 4.0 |" in text
    assert "Measured 2026-01-01 to 2026-01-02 on a machine." in text
    document = (BENCHMARKS.parent / "docs" / "performance.md").read_text()
    once = page.insert(document, text)
    assert page.insert(once, text) == once
    assert page.insert(once, "") == page.insert(document, "")


def test_a_gpu_has_tables_of_its_own() -> None:
    systems = {"convjax": Measured((0.5,), 10**9, 40.0), "linen": Measured((1.0,), 10**9, 30.0)}
    case = Case("resnet50", "train", "bfloat16", "gpu")
    every = results(case, Found(systems, 1e15), 1e14, "2026-01-01", "a GPU")
    text = page.tables(every, [], "gpu")
    assert "| resnet50 (128) | 256.0 | - | 2.00 (2.00 to 2.00) | 20%, - |" in text
    assert "pure" not in text
    document = (BENCHMARKS.parent / "docs" / "performance.md").read_text()
    once = page.insert(document, text, "gpu")
    assert page.insert(once, "", "gpu") == page.insert(document, "", "gpu")
    assert "| resnet50 (128) |" in once
    assert "| lenet5 (128) |" in once  # the tables of CPUs stay


def test_each_device_has_systems_of_its_own() -> None:
    def names(precision: Precision, device: Device) -> set[str]:
        return {
            name for name, system in SYSTEMS.items() if system.measures(Case("resnet50", "train", precision, device))
        }

    assert {"convjax native", "convjax pure", "linen", "torch compile"} <= names("float32", "cpu")
    assert names("bfloat16", "gpu") == {"convjax", "linen", "torch autocast", "torch autocast compile"}


def test_a_system_that_fails_says_why() -> None:
    with pytest.raises(Failed, match=r"convjax native ended with 1: KeyError: 'resnet21'"):
        Process(SYSTEMS["convjax native"], Case("resnet21", "train", "float32"), sys.executable)
