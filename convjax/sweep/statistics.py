"""What few seeds can show: means with intervals, paired tests, effect sizes, and how many seeds it would take."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
"""Level of the tests, and 1 - ALPHA that of the intervals."""
POWER = 0.8
"""Chance to see a difference that `needed` asks for."""
MOST_NEEDED = 10_000
"""Where `needed` gives up."""
_DIGITS = 14
"""Digits after the point, relative to the larger values, to which differences are taken."""
_LARGEST_EFFECT = 1000.0
"""Beyond this an effect is as visible as can be."""
_MOST_ENUMERATED = 12
"""Differences up to which a Wilcoxon test with ties goes through all signs."""

Test: TypeAlias = Literal["t", "wilcoxon"]


@dataclasses.dataclass(frozen=True)
class Summary:
    """A sample in numbers.

    Attributes:
        n: number of values.
        mean: their mean, None without a value.
        deviation: standard deviation, with n - 1 in the denominator; None for less than two values.
        interval: where the mean lies with 95 % confidence, see `interval`; None for less than two values.
    """

    n: int
    mean: float | None
    deviation: float | None
    interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Paired:
    """The differences of two paired samples.

    Attributes:
        difference: the differences, arm - reference, in numbers.
        p: p-value of the two-sided paired test; None where there is nothing to test: fewer than two pairs, or
            differences that do not vary.
        effect: Cohen's d_z, the mean of the differences over their standard deviation (Lakens 2013,
            doi:10.3389/fpsyg.2013.00863, equation 6); None where p would be, too.
    """

    difference: Summary
    p: float | None
    effect: float | None


def summarise(values: Sequence[float]) -> Summary:
    """Returns a sample in numbers."""
    n = len(values)
    if n < 2:
        return Summary(n, values[0] if n else None, None, None)
    if min(values) == max(values):  # whose computed mean may be another by rounding
        return Summary(n, values[0], 0.0, (values[0], values[0]))
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    return Summary(n, mean, deviation, interval(mean, deviation, n))


def interval(mean: float, deviation: float, n: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of a mean by Student's t: mean +- t(0.975, n - 1) * deviation / sqrt(n)."""
    # SciPy takes a second to import; whoever asks for the command's help need not wait for it.
    from scipy import stats

    half = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * deviation / math.sqrt(n)
    return mean - half, mean + half


def paired(arm: Sequence[float], reference: Sequence[float], test: Test = "t") -> Paired:
    """Compares two samples whose values belong together one by one.

    Args:
        arm: values of one.
        reference: values of the other, in the same order.
        test: t, Student's paired test, which takes differences to be normally distributed; or wilcoxon, the
            signed-rank test, which takes them to be symmetric only, and needs 6 pairs to reach p < 0.05.
    """
    ours, theirs = np.asarray(arm, np.float64), np.asarray(reference, np.float64)
    scale = max(map(abs, (*arm, *reference)), default=0.0) or 1.0
    # The same difference of two accuracies has other last bits elsewhere: it must count as the same.
    differences: NDArray[np.float64] = np.round((ours - theirs) / scale, _DIGITS)
    found = summarise((differences * scale).tolist())
    if not found.deviation or found.mean is None:
        return Paired(found, None, None)
    p = _t(differences) if test == "t" else _wilcoxon(differences)
    return Paired(found, p, found.mean / found.deviation)


def _t(differences: NDArray[np.float64]) -> float:
    from scipy import stats

    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _wilcoxon(differences: NDArray[np.float64]) -> float:
    """Returns the p-value of the signed-rank test: exact, but for many differences with ties.

    Differences of 0 are left out.
    """
    from scipy import stats

    differences = differences[differences != 0]
    ties = len(np.unique(np.abs(differences))) < len(differences)
    enumerates = ties and len(differences) <= _MOST_ENUMERATED
    return float(stats.wilcoxon(differences, method=stats.PermutationMethod() if enumerates else "auto").pvalue)


def smallest_p(n: int, test: Test) -> float:
    """Returns the smallest p-value that a test of n pairs can have at all."""
    return 2.0 ** (1 - n) if test == "wilcoxon" else 0.0


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Returns p-values corrected for their number; None stays None, and does not count.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    tested = [p for p in ps if p is not None]
    if not tested:
        return list(ps)
    from statsmodels.stats.multitest import multipletests

    corrected = iter(multipletests(tested, alpha=ALPHA, method="holm")[1].tolist())
    return [None if p is None else next(corrected) for p in ps]


def needed(effect: float, comparisons: int = 1) -> int | None:
    """Returns the fewest pairs with which a paired t test sees an effect with a chance of 80 %.

    Args:
        effect: Cohen's d_z.
        comparisons: number of comparisons. The test is taken to be one at the level 0.05 / comparisons, which the
            smallest p-value must pass by Holm's procedure.

    Returns:
        The number; None if it is above 10,000.
    """
    level = ALPHA / comparisons
    low, high = 1, 2
    while power(effect, high, level) < POWER:
        if high > MOST_NEEDED:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle, level) >= POWER else (middle, high)
    return high if high <= MOST_NEEDED else None


def power(effect: float, n: int, level: float) -> float:
    """Returns the chance that a two-sided paired t test sees an effect.

    It is what `statsmodels.stats.power.TTestPower` computes, too, by the noncentral t distribution, which in SciPy is
    not a number for many large effects. The square of t has a noncentral F distribution, which is one wherever the
    power is not 1 to all digits.

    Args:
        effect: Cohen's d_z.
        n: number of pairs.
        level: of the test.
    """
    from scipy import special, stats

    critical = stats.t.ppf(1 - level / 2, n - 1) ** 2
    return float(1 - special.ncfdtr(1, n - 1, n * min(abs(effect), _LARGEST_EFFECT) ** 2, critical))
