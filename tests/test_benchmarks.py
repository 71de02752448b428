"""What `make bench` makes of its measurements; the measuring itself takes an hour."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from peers import epoch, page, traced  # noqa: E402 - found only now
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


def test_what_is_measured_anew_takes_the_place_of_its_whole_case_and_other_cases_stay(tmp_path: Path) -> None:
    """A row of another day is not to stand beside rows that it took no turns with."""
    path = tmp_path / "performance.json"
    assert read(path) == []
    old = found(convjax_native=(1.0,), linen=(6.0,))
    other = [dataclasses.replace(r, task="infer") for r in old]
    new = [dataclasses.replace(r, date="2026-02-02") for r in found(linen=(5.0,))]
    write(path, [*old, *other])
    write(path, merged(read(path), new))
    assert read(path) == [*other, *new]
    kept = {"network", "task", "precision", "system", "median_s", "images_per_s", "peak_memory_bytes", "share_of_peak"}
    assert all(kept <= fields.keys() for fields in json.loads(path.read_text()))


def test_tables_stand_between_the_marks_of_the_page() -> None:
    tuned = {"linen, same memory settings": (4.5,)}
    every = found(convjax_native=(1.0,), convjax_pure=(3.0,), linen=(6.0,), torch_eager=(2.0,), **tuned)
    text = page.tables(every, [Epoch("linen", 10.0, 9.0, 11.0, 4.0, "2026-01-02", "a machine")])
    ratios = ("2.00 (2.00 to 2.00), eager", "6.00 (6.00 to 6.00)", "4.50", "2.00 (2.00 to 2.00)")
    cells = ("resnet20 (128)", "128.0", *ratios)
    assert f"| {' | '.join(cells)} |" in text
    assert "| linen | 10.00 (9.00 to 11.00) | 6000 | 4.0 |" in text
    assert "Measured 2026-01-01 to 2026-01-02 on a machine." in text
    document = (BENCHMARKS.parent / "docs" / "performance.md").read_text()
    once = page.insert(document, text)
    assert page.insert(once, text) == once
    assert page.insert(once, "") == page.insert(document, "")


def test_the_page_shows_what_was_measured() -> None:
    docs = BENCHMARKS.parent / "docs"
    text = (docs / "performance.md").read_text()
    tables = page.tables(read(docs / "performance.json"), epoch.read(docs / "performance_epoch.json"))
    assert page.insert(text, tables) == text


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


def test_a_system_that_computes_no_number_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Process, "_answer", lambda self: {"value": float("nan"), "parameters": 1})
    with pytest.raises(Failed, match="stand-in computed nan"):
        Process(dataclasses.replace(SYSTEMS["linen"], name="stand-in", side="nothing_side"), CASE, sys.executable)


def test_products_of_a_compiled_program_are_found_by_what_they_are() -> None:
    program = """HloModule jit_train, is_scheduled=true

%fused_computation (p: f32[2,2]) -> f32[2,2] {
  ROOT %dot.1 = f32[2,2]{1,0} dot(%p, %p), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%fused_computation.1 (p: f32[2,2]) -> f32[2,2] {
  ROOT %tanh.1 = f32[2,2]{1,0} tanh(%p)
}

ENTRY %main (x: f32[2,2]) -> f32[2,2] {
  %x = f32[2,2]{1,0} parameter(0)
  %custom-call.1 = f32[2,2]{1,0} custom-call(%x, %x), custom_call_target="convjax_convolve"
  %custom-call.2 = f32[2,2]{1,0} custom-call(%x), custom_call_target="convjax_totals"
  %convolution.7 = f32[2,2]{1,0} convolution(%x, %x), dim_labels=b0f_0io->b0f
  %fusion = f32[2,2]{1,0} fusion(%custom-call.1), kind=kOutput, calls=%fused_computation
  ROOT %fusion.1 = f32[2,2]{1,0} fusion(%fusion), kind=kLoop, calls=%fused_computation.1
}
"""
    assert traced.products(program) == {"dot.1", "custom-call.1", "convolution.7", "fusion"}


def test_a_system_that_fails_says_why() -> None:
    with pytest.raises(Failed, match=r"convjax native ended with 1: KeyError: 'resnet21'"):
        Process(SYSTEMS["convjax native"], Case("resnet21", "train", "float32"), sys.executable)
