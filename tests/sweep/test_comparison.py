import csv
import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from scipy import stats

from convjax.errors import RunError, UsageError
from convjax.sweep import compare as compare_with_costs
from convjax.sweep import compute, curves, heat_map, plots, table
from convjax.sweep.record import Sweep
from convjax.train import events, log

compare = functools.partial(compare_with_costs, costs=False)

DIVERGED = "the loss of step 12 is nan: the training has diverged"

NORMS = {"model.norm": ["batch", "none"], "seed": [0, 1, 2]}
# Differences none - batch: -3 -1 -2 points. Mean -2, deviation 1, standard error 1 / sqrt(3), t(0.975, 2) = 4.302653.
BATCH, NONE = [0.90, 0.91, 0.92], [0.87, 0.90, 0.90]


def norms(path: Path, batch: list[float] = BATCH, none: list[float] = NONE) -> Path:
    values = {("batch", seed): value for seed, value in enumerate(batch)}
    return made.sweep(path, NORMS, values | {("none", seed): value for seed, value in enumerate(none)})


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three norms, two rates, three seeds; some runs diverged, failed, or are missing."""
    axes = {"model.norm": ["batch", "none", "group"], "optim.lr": [0.1, 0.3], "seed": [0, 1, 2]}
    values: dict[tuple[object, ...], object] = {
        ("batch", rate, seed): 0.9 + 0.01 * seed - rate / 10 for rate in (0.1, 0.3) for seed in range(3)
    }
    values |= {("none", 0.1, seed): 0.86 + 0.013 * seed for seed in range(3)}
    values |= {("none", 0.3, 0): DIVERGED, ("none", 0.3, 1): "out of memory"}
    values |= {("group", rate, seed): 0.87 + 0.02 * seed - rate / 10 for rate in (0.1, 0.3) for seed in range(2)}
    return made.sweep(tmp_path_factory.mktemp("lossy") / "x", axes, values)


def test_diverged_runs_are_counted_in_the_table(lossy: Path, tmp_path: Path) -> None:
    found = table.arms(compare(lossy, by=["model.norm"]))
    assert found.columns[:4] == ("model.norm", "n", "diverged", "mean test.accuracy (%)")
    assert [row[:3] for row in found.rows] == [
        ("batch", "3", "0 of 6"),
        ("none", "3", "1 of 6"),
        ("group", "2", "0 of 6"),
    ]
    assert "diverged" not in table.arms(compare(norms(tmp_path / "x"))).columns


def test_the_tail_of_a_run_is_the_mean_of_its_last_tenth(tmp_path: Path) -> None:
    path = made.sweep(tmp_path / "x", {"seed": [0]}, {(0,): 0.5})
    (arm,) = Sweep.read(path).runs
    with log.MetricsLog(arm.directory, step=30) as written:
        for step in range(31, 101):
            written.write(step, {"train.accuracy": step / 100})
    (row,) = compare(path, metric="train.accuracy:tail").arms
    assert row.summary.mean == pytest.approx(np.mean(np.arange(91, 101) / 100))


def test_three_seeds_by_hand(tmp_path: Path) -> None:
    found = compare(norms(tmp_path / "x"))
    batch, none = found.arms
    assert (batch.label, none.label) == ("batch", "none")
    assert batch.values == {0: 0.9, 1: 0.91, 2: 0.92}
    assert batch.summary.mean == pytest.approx(0.91)
    assert batch.summary.deviation == pytest.approx(0.01)
    (row,) = found.differences
    assert (row.arm, row.reference, row.seeds) == ("none", "batch", (0, 1, 2))
    half = 0.01 * 4.302653 / math.sqrt(3)
    assert row.paired.difference.interval == pytest.approx((-0.02 - half, -0.02 + half), abs=1e-8)
    assert row.paired.effect == pytest.approx(-2)
    assert row.p == row.paired.p == pytest.approx(stats.ttest_rel(NONE, BATCH).pvalue)
    assert row.verdict.startswith("no difference shown with n = 3 (p = 0.074); the observed -2.00 points would take")
    # G*Power 3.1, matched pairs, d_z = 2: four pairs give a power of 0.796, five 0.94.
    assert row.needed == 5


def test_a_difference_is_told_with_its_direction(tmp_path: Path) -> None:
    path = norms(tmp_path / "x", none=[0.80, 0.811, 0.82])
    (row,) = compare(path).differences
    assert row.verdict == "lower by 9.97 points (p < 0.001, n = 3)"
    (back,) = compare(path, baseline="none").differences
    assert back.verdict == "higher by 9.97 points (p < 0.001, n = 3)"
    assert back.paired.effect == pytest.approx(-row.paired.effect if row.paired.effect else None)
    # The loss of a made run is 1 - accuracy.
    (loss,) = compare(path, metric="test.loss").differences
    assert loss.verdict == "higher by 0.09967 (p < 0.001, n = 3)"


@pytest.mark.parametrize(
    ("batch", "none", "verdict"),
    [
        ([0.9], [0.8], "no difference shown with n = 1: nothing can be tested (observed -10.00 points)"),
        ([0.9, 0.8], [0.9, 0.8], "no difference shown with n = 2: equal on each seed"),
        (
            [0.9, 0.8],
            [0.89, 0.79],
            "the same difference, -1.00 points, on each of 2 seeds: without spread nothing can be tested",
        ),
        ([0.9, 0.8], [], "no common seed: cannot be compared"),
        # d 1 3: t = 2 / (sqrt(2) / sqrt(2)) = 2, and with one degree of freedom p = 1 - 2 atan(2) / pi.
        (
            [0.80, 0.81],
            [0.81, 0.84],
            f"no difference shown with n = 2 (p = {1 - 2 * math.atan(2) / math.pi:.3f}); "
            "the observed +2.00 points would take about n = 7 to see",
        ),
        (
            [0.80, 0.82, 0.81],
            [0.82, 0.80, 0.81],
            "no difference shown with n = 3 (p = 1.000); the observed +0.00 points would take more than 10,000 "
            "seeds to see",
        ),
    ],
)
def test_few_seeds_in_words(tmp_path: Path, batch: list[float], none: list[float], verdict: str) -> None:
    (row,) = compare(norms(tmp_path / "x", batch, none)).differences
    assert row.verdict == verdict


def test_ranks_of_three_seeds_show_nothing(tmp_path: Path) -> None:
    (row,) = compare(norms(tmp_path / "x"), test="wilcoxon").differences
    assert row.p == 0.25
    assert "no difference shown with n = 3 (p = 0.250): by ranks, n = 3 cannot show any" in row.verdict


def test_lost_runs_are_told_of(lossy: Path) -> None:
    found = compare(lossy)
    problems = {tuple(run.settings.values()): run.problem for run in found.lost}
    assert problems == {
        ("none", 0.3, 0): "diverged at step 12",
        ("none", 0.3, 1): "failed: out of memory",
        ("none", 0.3, 2): "has not been run to its end",
        ("group", 0.1, 2): "has not been run to its end",
        ("group", 0.3, 2): "has not been run to its end",
    }
    assert [run.diverged for run in found.lost] == [True, False, False, False, False]
    assert "norm=none, lr=0.3: 3 of 3 runs do not count (1 diverged, 1 failed, 1 missing)" in " ".join(found.notes)
    assert len(found.arms) == 6
    assert found.arms[3].summary.mean is None


def test_pairs_are_over_common_seeds(lossy: Path) -> None:
    rows = {row.arm: row for row in compare(lossy).differences}
    assert rows["norm=group, lr=0.1"].seeds == (0, 1)
    # group - batch at the rate 0.1: 0.86 - 0.89, 0.88 - 0.90.
    assert rows["norm=group, lr=0.1"].paired.difference.mean == pytest.approx(-0.025)
    assert rows["norm=none, lr=0.3"].verdict == "no common seed: cannot be compared"


def test_other_axes_are_averaged_within_each_seed(lossy: Path) -> None:
    found = compare(lossy, by=["model.norm"])
    assert [arm.label for arm in found.arms] == ["batch", "none", "group"]
    # Two rates, but three seeds: n counts repetitions.
    assert found.arms[0].values == pytest.approx({0: 0.88, 1: 0.89, 2: 0.90})
    assert found.arms[0].summary.n == 3
    none, group = found.differences
    # With none only the rate 0.1 has values: compared with batch at that rate, 0.89 + 0.01 seed.
    assert none.paired.difference.mean == pytest.approx(np.mean([0.86 - 0.89, 0.873 - 0.90, 0.886 - 0.91]))
    assert group.paired.difference.n == 2
    assert found.notes[0] == "values are averaged over optim.lr within each seed"
    # Corrected as by hand: the smaller of two twice, then the larger, never falling.
    small, large = sorted([none, group], key=lambda row: row.paired.p or 0)
    assert small.p == pytest.approx(2 * (small.paired.p or 0))
    assert large.p == pytest.approx(max(large.paired.p or 0, small.p or 0))


def test_all_pairs(lossy: Path) -> None:
    found = compare(lossy, by=["model.norm"], all_pairs=True, baseline="none")
    assert [(r.arm, r.reference) for r in found.differences] == [
        ("batch", "none"),
        ("group", "none"),
        ("group", "batch"),
    ]


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("test.accuracy", 0.9),
        ("test.loss", 0.1),
        ("test.top5", 1.0),
        ("test.per_class.a", 0.9),
        ("validation.accuracy", 0.89),
        ("validation.accuracy:last", 0.9 * 30 / 40),
        ("train.loss", 1 / 30),
        ("train.loss:last", 1 / 30),
        ("validation.loss:best", 2 / 30),
        ("validation.accuracy:best", 0.9 * 30 / 40),
    ],
)
def test_metrics_of_results_and_logs(tmp_path: Path, metric: str, value: float) -> None:
    path = made.sweep(tmp_path / "x", {"seed": [0]}, {(0,): 0.9})
    assert compare(path, metric=metric).arms[0].summary.mean == pytest.approx(value)


def test_a_value_that_is_not_finite_is_none(tmp_path: Path) -> None:
    path = norms(tmp_path / "x")
    run = Sweep.read(path).runs[0]
    with (run.directory / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "train.loss": null}\n')
    found = compare(path, metric="train.loss")
    assert [(lost.name, lost.problem) for lost in found.lost] == [
        (run.name, "has no train.loss:last that is a finite number")
    ]
    assert "batch: 1 of 3 runs do not count (1 without a value)" in found.notes
    for run in Sweep.read(path).runs:
        with (run.directory / "metrics.jsonl").open("a") as file:
            file.write('{"step": 50, "train.loss": null}\n')
    with pytest.raises(UsageError, match=r"'train\.loss:last', which is a finite number in no run"):
        compare(path, metric="train.loss")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "test.acuracy"}, "did you mean test.accuracy"),
        ({"metric": "train.acc:last"}, "did you mean train.accuracy:last"),
        ({"metric": "train.loss:first"}, "after the colon stands last, tail or best"),
        ({"metric": "train.gradient_norm:best"}, "only accuracies and losses have a best value"),
        ({"by": ["model.nrom"]}, "did you mean model.norm"),
        ({"by": ["seed"]}, "take another axis"),
        ({"baseline": "layer"}, "is no arm: arms are batch; none"),
    ],
)
def test_wrong_input_is_named(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    path = norms(tmp_path / "x")
    with pytest.raises(UsageError, match=message):
        compare(path, **arguments)  # type: ignore[arg-type]


def test_nothing_to_compare_yet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of the sweep's 6 runs has finished"):
        compare(made.sweep(tmp_path / "x", NORMS, {}))
    with pytest.raises(UsageError, match="holds no sweep"):
        compare(tmp_path)


def test_a_damaged_result_is_no_missing_one(tmp_path: Path) -> None:
    path = norms(tmp_path / "x")
    result = Sweep.read(path).runs[0].directory / "result.json"
    result.write_text(result.read_text()[:50])
    with pytest.raises(RunError, match=r"result\.json cannot be read"):
        compare(path)


def test_costs_and_the_pareto_front_by_hand(tmp_path: Path) -> None:
    path = made.sweep(tmp_path / "x", {"hidden": [2, 4, 8, 16]}, {})
    accuracies = [0.5, 0.8, 0.7, 0.9]  # the third costs more than the second, and gives less
    for run, accuracy in zip(Sweep.read(path).runs, accuracies, strict=True):
        made.finish(run, accuracy, hidden=run.settings["hidden"])
    found = compare_with_costs(path)
    # 64 pixels and a scale and a bias for each unit, and 2 classes with biases.
    costs = [arm.cost for arm in found.arms if arm.cost is not None]
    assert [cost.parameters for cost in costs] == [66 * h + 2 * (h + 1) for h in (2, 4, 8, 16)]
    assert [cost.multiply_accumulates for cost in costs] == [66 * h for h in (2, 4, 8, 16)]
    fronts = [{"parameters", "multiply_accumulates"} <= set(arm.fronts) for arm in found.arms]
    assert fronts == [True, True, False, True]
    # With the loss, 1 - accuracy, less is better: the same front.
    loss = compare_with_costs(path, metric="test.loss")
    assert ["parameters" in arm.fronts for arm in loss.arms] == fronts
    assert compare(path).arms[0].cost is None


def test_pareto_front_of_points() -> None:
    # 1 is beaten by 0 (as good, cheaper), 3 by 2 (cheaper and better); 4 equals 2.
    points = [(1.0, 0.5), (2.0, 0.5), (3.0, 0.9), (4.0, 0.8), (3.0, 0.9)]
    assert compute.pareto_front(points) == [0, 2, 4]
    assert compute.pareto_front([]) == []


def test_seconds_are_those_between_first_and_last_event_of_each_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0] * 3 + [130.0] + [500.0] * 3 + [512.5])
    monkeypatch.setattr("time.time", lambda: next(clock))
    for step in (0, 10):
        with log.MetricsLog(tmp_path, step=step, writes=False):
            file = events.Events(tmp_path / "tensorboard", step)
            file.add("train/loss", 1.0, step + 5)
            file.close()
    assert events.seconds(tmp_path) == 30 + 12.5
    # One that was being written when the machine went down.
    newest = max((tmp_path / "tensorboard").iterdir())
    newest.write_bytes(newest.read_bytes()[:-3])
    assert events.seconds(tmp_path) == 30
    assert events.seconds(tmp_path / "elsewhere") is None


def test_curves_are_means_over_seeds(tmp_path: Path) -> None:
    batch, none = curves.read(compare(norms(tmp_path / "x")), "train.accuracy")
    assert (batch.label, none.label) == ("batch", "none")
    assert batch.steps == (10, 20, 30)
    # A made run's accuracy rises in thirds.
    assert [point.mean for point in batch.points] == pytest.approx([0.91 / 3, 0.91 * 2 / 3, 0.91])
    assert batch.points[2].interval == pytest.approx((0.91 - 0.02484, 0.91 + 0.02484), abs=1e-5)
    assert curves.read(compare(tmp_path / "x"), "train.nothing") == ()


def test_tables_hold_every_number(lossy: Path, tmp_path: Path) -> None:
    found = compare_with_costs(lossy)
    table.save(found, tmp_path, ["arms.png"])
    with (tmp_path / "arms.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) if row["mean"] else None for row in rows] == [a.summary.mean for a in found.arms]
    assert rows[0]["model.norm"] == "batch"
    assert rows[0]["parameters"] == "274.0"
    with (tmp_path / "runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 18
    assert [run["state"] for run in runs].count("finished") == 13
    with (tmp_path / "differences.csv").open() as file:
        differences = list(csv.DictReader(file))
    assert [row["verdict"] for row in differences] == [row.verdict for row in found.differences]
    text = (tmp_path / "comparison.md").read_text()
    assert "![arms](arms.png)" in text
    assert "| norm=none, lr=0.3 | 0 |" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| norm=") and " to " not in line}
    assert len(widths) <= 2
    json.dumps(found.to_json(), allow_nan=False)


def test_what_means_something_to_markdown_is_escaped(tmp_path: Path) -> None:
    path = made.sweep(tmp_path / "x", {"model": ["a|b<i>"], "seed": [0]}, {("a|b<i>", 0): 0.5})
    text = table.markdown(compare(path))
    assert r"| a\|b&lt;i> | 1 | 50.00 |" in text


def test_pictures_are_the_same_every_time(lossy: Path, tmp_path: Path) -> None:
    found = compare(lossy, by=["model.norm"])
    arms = [dataclasses.replace(arm, cost=compute.Cost(10.0 + i, 5.0, None)) for i, arm in enumerate(found.arms)]
    found = dataclasses.replace(found, arms=tuple(arms))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        drawn = [path.name for path in plots.save(found, tmp_path / name)]
    assert drawn == [f"{name}.{kind}" for name in ("arms", "curves", "cost") for kind in ("png", "svg")]
    for name in drawn:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_heat_map_holds_means_where_they_belong(tmp_path: Path) -> None:
    varied = {"optim.lr": [0.3, 0.1], "optim.weight_decay": [0.0, 0.5], "model.norm": ["batch", "none"]}
    values = {(0.3, 0.0, "batch"): 0.1, (0.1, 0.0, "batch"): 0.2, (0.3, 0.5, "batch"): 0.3, (0.1, 0.5, "none"): 0.4}
    figure = heat_map.draw(compare(made.sweep(tmp_path / "x", varied, values)))
    assert figure is not None
    batch, none, _ = figure.axes
    assert [text.get_text() for text in batch.get_xticklabels()] == ["0.1", "0.3"]
    assert [text.get_text() for text in batch.get_yticklabels()] == ["0.5", "0.0"]
    assert batch.get_title() == "model.norm=batch"
    cells: list[tuple[Any, list[list[float | None]]]] = [
        (batch, [[None, 30], [20, 10]]),
        (none, [[40, None], [None] * 2]),
    ]
    for axes, expected in cells:
        drawn = axes.images[0].get_array().tolist()
        assert drawn == [[value and pytest.approx(value) for value in row] for row in expected]
    assert heat_map.draw(compare(tmp_path / "x", by=["optim.lr", "model.norm"])) is None


def test_no_texts_of_twelve_arms_overlap(tmp_path: Path) -> None:
    names = [f"a_long_name_of_a_network_number_{i}_with_squeeze_and_excitation" for i in range(12)]
    path = made.sweep(tmp_path / "x", {"model": names}, {(name,): 0.5 + i / 50 for i, name in enumerate(names)})
    found = compare(path)
    for draw in (plots.arms, plots.learning_curves):
        figure = draw(found)
        assert figure is not None
        figure.savefig(tmp_path / "x.png")
        legends = [text for legend in figure.legends for text in legend.get_texts()]
        texts = legends or figure.axes[0].get_yticklabels()
        assert len(texts) == 12
        boxes = [text.get_window_extent() for text in texts]
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i]), texts[i].get_text()
            assert figure.bbox.y0 <= box.y0
            assert box.y1 <= figure.bbox.y1
