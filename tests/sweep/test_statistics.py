import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower

from convjax.sweep import statistics
from convjax.sweep.statistics import Test, holm, needed, paired, power, summarise

# Student 1908, "The probable error of a mean", table of additional hours of sleep with two drugs; R's `sleep`.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]

# Darwin's maize, self- and cross-fertilised: SciPy's example of the signed-rank test.
DARWIN = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]

values = st.floats(-1, 1).map(lambda x: round(x, 3))
pairs = st.lists(st.tuples(values, values), min_size=2, max_size=8)


def test_a_sample_by_hand() -> None:
    # Deviations from the mean 5: -3 -1 -1 -1 0 0 2 4; squares sum to 32. t(0.975, 7) = 2.364624 in every table.
    found = summarise([2, 4, 4, 4, 5, 5, 7, 9])
    assert (found.n, found.mean) == (8, 5)
    assert found.deviation == pytest.approx(math.sqrt(32 / 7), rel=1e-12)
    half = 2.364624 * math.sqrt(32 / 7 / 8)
    assert found.interval == pytest.approx((5 - half, 5 + half), rel=1e-6)


@pytest.mark.parametrize("given", [[], [0.5]])
def test_less_than_two_values_have_no_spread(given: list[float]) -> None:
    found = summarise(given)
    assert (found.n, found.mean) == (len(given), given[0] if given else None)
    assert found.deviation is None
    assert found.interval is None


def test_equal_values_have_exactly_no_spread() -> None:
    # Their mean, computed as a sum, is 0.10000000000000002.
    assert summarise([0.1, 0.1, 0.1]) == statistics.Summary(3, 0.1, 0.0, (0.1, 0.1))


def test_students_own_data() -> None:
    found = paired(SECOND, FIRST)
    # R: t.test(Pair(extra.2, extra.1) ~ 1) gives t = 4.0621, df = 9, p = 0.002833, interval 0.7001142 2.4598858.
    assert found.difference.mean == pytest.approx(1.58, abs=1e-12)
    assert found.difference.interval == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    # d_z = t / sqrt(n), Lakens 2013, equation 7.
    assert found.effect == pytest.approx(4.0621 / math.sqrt(10), abs=2e-5)
    assert found.p == pytest.approx(stats.ttest_rel(SECOND, FIRST).pvalue, rel=1e-9)


def test_darwins_maize_by_ranks() -> None:
    # SciPy's documentation: statistic 24, p = 0.041259765625, which is 1352 / 2**15.
    assert paired(DARWIN, [0] * 15, "wilcoxon").p == 0.041259765625


def test_signed_ranks_of_ties_by_hand() -> None:
    # |d| 1 1 2 3 have the ranks 1.5 1.5 3 4; the one negative has 1.5. Of the 16 choices of signs, sums of at most
    # 1.5 come by none, or by either of the ties: 3 of 16, twice for both sides. The 0 is left out.
    assert paired([0.1, 0.2, 0.3, 0.4, 0.5], [0.0, 0.3, 0.1, 0.1, 0.5], "wilcoxon").p == pytest.approx(6 / 16)


@pytest.mark.parametrize("n", [3, 5, 6])
def test_smallest_p_of_signed_ranks(n: int) -> None:
    found = paired([float(i) for i in range(1, n + 1)], [0.0] * n, "wilcoxon").p
    assert found == statistics.smallest_p(n, "wilcoxon") == 2 / 2**n
    assert (found < statistics.ALPHA) == (n >= 6)


def test_differences_that_do_not_vary_are_not_tested() -> None:
    # 0.3 - 0.2 and 0.2 - 0.1 differ in their last bits.
    same = paired([0.3, 0.2], [0.2, 0.1])
    assert (same.p, same.effect) == (None, None)
    assert same.difference.deviation == 0
    assert same.difference.mean == pytest.approx(0.1)
    none = paired([0.3, 0.7, 0.9], [0.3, 0.7, 0.9])
    assert (none.difference.mean, none.difference.deviation, none.p) == (0, 0, None)
    one = paired([0.3], [0.2])
    assert (one.difference.n, one.difference.deviation, one.p, one.effect) == (1, None, None, None)
    assert paired([], []).difference == statistics.Summary(0, None, None, None)


def test_holm_by_hand() -> None:
    # Sorted 0.01 0.03 0.04, times 3, 2, 1, never falling: 0.03 0.06 0.06. What was not tested does not count.
    assert holm([0.04, None, 0.01, 0.03]) == pytest.approx([0.06, None, 0.03, 0.06])
    assert holm([None, None]) == [None, None]
    assert holm([0.6, 0.7]) == [1, 1]


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_needed_pairs_are_those_of_gpower(effect: float, n: int) -> None:
    # G*Power 3.1, difference between two dependent means, two-sided, alpha 0.05, power 0.8: small, medium, large.
    assert needed(effect) == needed(-effect) == n
    assert n == math.ceil(TTestPower().solve_power(effect, power=0.8, alpha=0.05))
    assert needed(effect, comparisons=5) == math.ceil(TTestPower().solve_power(effect, power=0.8, alpha=0.01))


def test_power_where_statsmodels_has_no_number() -> None:
    for effect, n, level in [(0.01, 2, 0.05), (0.3, 7, 0.05), (2.0, 3, 0.001), (1.0, 30, 0.01)]:
        assert power(effect, n, level) == pytest.approx(TTestPower().power(effect, n, level), rel=1e-9)
    assert math.isnan(TTestPower().power(7.77, 2, 0.05))
    # With two pairs x, y: |t| = |x + y| / |x - y| > t(0.975, 1). Of a million drawn ones; error 0.0005.
    x, y = np.random.default_rng(0).normal(7.77, 1, (2, 1_000_000))
    seen = np.mean(np.abs(x + y) > math.tan(math.pi * 0.475) * np.abs(x - y))
    assert power(7.77, 2, 0.05) == pytest.approx(seen, abs=0.002)


def test_needed_pairs_at_the_ends() -> None:
    # Two pairs must pass t(0.975, 1) = 12.7; an effect of 50 is 70 standard errors away, one of 5 seven.
    assert needed(50) == needed(1e9) == 2
    assert needed(5) == 3
    assert needed(1e-3) is None
    assert needed(0) is None


@given(pairs, st.sampled_from(["t", "wilcoxon"]))
@settings(max_examples=60, deadline=None)
def test_swapping_the_arms_flips_the_signs_only(given: list[tuple[float, float]], test: Test) -> None:
    arm, reference = map(list, zip(*given, strict=True))
    there, back = paired(arm, reference, test), paired(reference, arm, test)
    assert there.p == (None if back.p is None else pytest.approx(back.p, rel=1e-9))
    assert there.effect == (None if back.effect is None else -back.effect)
    assert there.difference.mean == -(back.difference.mean or 0)
    assert there.difference.deviation == back.difference.deviation


@given(pairs.flatmap(lambda x: st.tuples(st.just(x), st.permutations(x))), st.sampled_from(["t", "wilcoxon"]))
@settings(max_examples=60, deadline=None)
def test_shift_scale_and_order_do_not_matter(
    given: tuple[list[tuple[float, float]], list[tuple[float, float]]], test: Test
) -> None:
    (arm, reference), (arm2, reference2) = (np.array(rows).T for rows in given)
    first = paired(arm.tolist(), reference.tolist(), test)
    other = paired((7 * arm2 + 3).tolist(), (7 * reference2 + 3).tolist(), test)
    assert other.p == (None if first.p is None else pytest.approx(first.p, rel=1e-6))
    assert other.effect == (None if first.effect is None else pytest.approx(first.effect, rel=1e-6))
    assert other.difference.mean == pytest.approx(7 * (first.difference.mean or 0), abs=1e-9)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_p_and_interval_say_the_same(given: list[tuple[float, float]]) -> None:
    arm, reference = map(list, zip(*given, strict=True))
    found = paired(arm, reference)
    if found.p is not None and found.difference.interval is not None:
        low, high = found.difference.interval
        assert (found.p < 0.05) == (low > 0 or high < 0)
