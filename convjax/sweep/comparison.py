"""The arms of a sweep compared: `compare` reads all, and prints nothing."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convjax.errors import UsageError, nearest
from convjax.sweep import compute, results, statistics, words
from convjax.sweep.compute import Cost, Costs
from convjax.sweep.metric import Metric
from convjax.sweep.record import Sweep, Value
from convjax.sweep.results import RunRow
from convjax.sweep.statistics import Paired, Summary, Test

SEED = "seed"
"""The axis whose values are repetitions."""


@dataclasses.dataclass(frozen=True)
class ArmRow:
    """An arm: the runs with the same settings, but for the seed and for axes that are averaged over.

    Attributes:
        label: what it is called.
        settings: value by axis that arms are compared by.
        runs: its runs, those without a value, too.
        values: metric by seed, averaged over the other axes' combinations that have a value; without an axis `seed`
            there is one, with the seed None.
        summary: the values in numbers.
        cost: mean cost of the runs that have a value; None if costs were not asked for.
        fronts: the costs by which no other arm beats it, names of fields of `Cost`.
    """

    label: str
    settings: Mapping[str, Value]
    runs: tuple[RunRow, ...]
    values: Mapping[Value, float]
    summary: Summary
    cost: Cost | None = None
    fronts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class DifferenceRow:
    """Two arms compared over their common seeds.

    Attributes:
        arm: label of one.
        reference: label of the other; differences are arm - reference.
        seeds: the seeds that have a value in both.
        paired: the differences in numbers.
        p: p-value corrected for the number of comparisons (Holm); None where nothing could be tested.
        needed: number of seeds that would show the observed difference, see `statistics.needed`; None where there is
            no effect to reckon with, or it would take more than 10,000.
        verdict: what can be said, in words.
    """

    arm: str
    reference: str
    seeds: tuple[Value, ...]
    paired: Paired
    p: float | None
    needed: int | None
    verdict: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A sweep's arms compared by a metric.

    Attributes:
        path: directory of the sweep.
        experiment: the experiment's file, as it was given to the sweep.
        metric: what they are compared by.
        by: the axes that arms are told apart by.
        test: the paired test.
        arms: in the order of the sweep.
        differences: against the baseline, or of all pairs.
        notes: what must be known to read the numbers, in sentences.
    """

    path: Path
    experiment: str
    metric: Metric
    by: tuple[str, ...]
    test: Test
    arms: tuple[ArmRow, ...]
    differences: tuple[DifferenceRow, ...]
    notes: tuple[str, ...]

    @property
    def lost(self) -> tuple[RunRow, ...]:
        """The runs that have no value."""
        return tuple(run for arm in self.arms for run in arm.runs if run.value is None)

    @property
    def has_costs(self) -> bool:
        """Whether costs were asked for."""
        return any(arm.cost is not None for arm in self.arms)

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as what JSON knows."""
        found = dataclasses.asdict(self)
        found |= {"path": str(self.path), "metric": self.metric.name}
        for arm in found["arms"]:
            arm["values"] = [{"seed": seed, "value": value} for seed, value in arm["values"].items()]
            for run in arm["runs"]:
                run["directory"] = str(run["directory"])
        return found


def compare(
    path: str | Path,
    *,
    metric: str = "test.accuracy",
    by: Sequence[str] = (),
    baseline: str | None = None,
    all_pairs: bool = False,
    test: Test = "t",
    costs: bool = True,
) -> Comparison:
    """Compares the arms of a sweep.

    Args:
        path: directory of the sweep.
        metric: a number of result.json, as test.accuracy, validation.loss or test.top5; or one of metrics.jsonl with
            its last or best value, as train.loss:last or validation.accuracy:best.
        by: axes to tell arms apart by; the others are averaged over within each seed. None given: all but `seed`.
        baseline: label of the arm that others are compared with, or what only its label contains; None: the first.
        all_pairs: whether to compare each arm with each.
        test: t or wilcoxon, see `statistics.paired`.
        costs: whether to count parameters, multiply-accumulates and seconds, too.

    Raises:
        UsageError: there is no such sweep, axis, metric or baseline, or no run has finished.
        RunError: a file is damaged.
    """
    sweep = Sweep.read(Path(path))
    wanted = Metric.parse(metric)
    axes = _axes(sweep, by)
    arms = _arms(results.read(sweep.runs, wanted), axes)
    if costs:
        arms = _with_costs(arms, wanted)
    pairs = _pairs(arms, baseline, all_pairs=all_pairs)
    differences = _differences(pairs, wanted, test)
    notes = words.notes(sweep, axes, arms, differences)
    return Comparison(sweep.path, sweep.experiment, wanted, axes, test, arms, differences, notes)


def _axes(sweep: Sweep, by: Sequence[str]) -> tuple[str, ...]:
    axes = [axis for axis in sweep.axes if axis != SEED]
    for axis in by:
        if axis == SEED:
            raise UsageError("--by is seed: arms are compared over their seeds; take another axis")
        if axis not in axes:
            known = nearest(axis, axes) if axes else "it has no axis but seed"
            raise UsageError(f"--by is {axis!r}, which is no axis of {sweep.path}: {known}")
    return tuple(dict.fromkeys(by)) or tuple(axes)


def _arms(runs: Sequence[RunRow], axes: tuple[str, ...]) -> tuple[ArmRow, ...]:
    groups: dict[str, list[RunRow]] = {}
    for run in runs:
        groups.setdefault(_key(run, axes), []).append(run)
    labels = words.labels([{axis: group[0].settings[axis] for axis in axes} for group in groups.values()])
    rows = []
    for label, group in zip(labels, groups.values(), strict=True):
        values = _by_seed(group)
        settings = {axis: group[0].settings[axis] for axis in axes}
        rows.append(ArmRow(label, settings, tuple(group), values, statistics.summarise(list(values.values()))))
    return tuple(rows)


def _key(run: RunRow, axes: Sequence[str]) -> str:
    """Returns a run's values on some axes as one text."""
    return json.dumps([run.settings[axis] for axis in axes])


def _by_seed(runs: Sequence[RunRow]) -> dict[Value, float]:
    """Returns the mean value by seed of the runs that have one."""
    found: dict[Value, list[float]] = {}
    for run in runs:
        if run.value is not None:
            found.setdefault(run.settings.get(SEED), []).append(run.value)
    return {seed: sum(values) / len(values) for seed, values in found.items()}


def _with_costs(arms: Sequence[ArmRow], metric: Metric) -> tuple[ArmRow, ...]:
    """Returns the arms with their costs, and the Pareto fronts in which they lie by their means."""
    known = Costs()
    costs = [compute.mean([known.of(run.directory) for run in arm.runs if run.value is not None]) for arm in arms]
    fronts: list[tuple[str, ...]] = [()] * len(arms)
    for field in compute.TITLES:
        places = [i for i, arm in enumerate(arms) if arm.summary.mean is not None and getattr(costs[i], field)]
        sign = {True: 1, False: -1, None: 0}[metric.higher_is_better]
        points = [(getattr(costs[i], field), sign * (arms[i].summary.mean or 0.0)) for i in places]
        for place in compute.pareto_front(points) if sign else []:
            fronts[places[place]] += (field,)
    return tuple(
        dataclasses.replace(arm, cost=cost, fronts=front) for arm, cost, front in zip(arms, costs, fronts, strict=True)
    )


def _pairs(arms: Sequence[ArmRow], baseline: str | None, *, all_pairs: bool) -> list[tuple[ArmRow, ArmRow]]:
    """Returns which arms to compare, as (arm, reference)."""
    reference = arms[0] if baseline is None else _baseline(arms, baseline)
    if not all_pairs:
        return [(arm, reference) for arm in arms if arm is not reference]
    first = [reference, *(arm for arm in arms if arm is not reference)]
    return [(arm, other) for other, arm in itertools.combinations(first, 2)]


def _baseline(arms: Sequence[ArmRow], baseline: str) -> ArmRow:
    exact = [arm for arm in arms if arm.label == baseline]
    found = exact or [arm for arm in arms if baseline in arm.label]
    if len(found) != 1:
        several = f"fits {len(found)} arms" if found else "is no arm"
        raise UsageError(f"--baseline is {baseline!r}, which {several}: arms are {'; '.join(a.label for a in arms)}")
    return found[0]


def _differences(pairs: Sequence[tuple[ArmRow, ArmRow]], metric: Metric, test: Test) -> tuple[DifferenceRow, ...]:
    values = [_common(arm.runs, reference.runs, tuple(arm.settings)) for arm, reference in pairs]
    compared = [statistics.paired(list(ours.values()), list(theirs.values()), test) for ours, theirs in values]
    corrected = statistics.holm([paired.p for paired in compared])
    tests = sum(p is not None for p in corrected)
    rows = []
    for (arm, reference), (ours, _), paired, p in zip(pairs, values, compared, corrected, strict=True):
        needed = None if paired.effect is None else statistics.needed(paired.effect, tests)
        verdict = words.verdict(paired, p, needed, metric, test)
        rows.append(DifferenceRow(arm.label, reference.label, tuple(ours), paired, p, needed, verdict))
    return tuple(rows)


def _common(
    runs: Sequence[RunRow], others: Sequence[RunRow], axes: tuple[str, ...]
) -> tuple[dict[Value, float], dict[Value, float]]:
    """Returns the values by seed of two arms, over those settings of the seed and the other axes that both have."""

    def place(run: RunRow) -> str:
        return _key(run, sorted(run.settings.keys() - set(axes)))

    here, there = ({place(run) for run in group if run.value is not None} for group in (runs, others))
    ours, theirs = (_by_seed([run for run in group if place(run) in here & there]) for group in (runs, others))
    return ours, {seed: theirs[seed] for seed in ours}
