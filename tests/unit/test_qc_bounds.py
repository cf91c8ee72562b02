"""Bounds against statsmodels and against the arithmetic that METHOD prints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from core.qc.bounds import (
    lower_bound,
    needed_n_above,
    needed_n_below,
    upper_bound,
    wilson_interval,
)

COUNTS = st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("bad", "n", "limit"),
    [(0, 59, 0.05), (1, 93, 0.05), (2, 124, 0.05), (5, 208, 0.05), (0, 29, 0.10), (2, 61, 0.10)],
)
def test_method_arithmetic(bad: int, n: int, limit: float) -> None:
    """METHOD's n shows the limit at 95 % one-sided, and one candidate fewer does not."""
    assert upper_bound(bad, n) < limit
    assert upper_bound(bad, n - 1) >= limit


@given(COUNTS)
def test_bounds_agree_with_statsmodels(counts: tuple[int, int]) -> None:
    """One-sided bounds equal the ends of statsmodels' two-sided Clopper-Pearson at twice alpha."""
    hits, n = counts
    if n == 0:
        assert (lower_bound(0, 0), upper_bound(0, 0)) == (0.0, 1.0)
        return
    low, high = proportion_confint(hits, n, alpha=0.10, method="beta")
    assert lower_bound(hits, n) == pytest.approx(low, abs=1e-9)
    assert upper_bound(hits, n) == pytest.approx(high, abs=1e-9)


@given(COUNTS)
def test_wilson_agrees_with_statsmodels(counts: tuple[int, int]) -> None:
    """The shown interval is statsmodels' Wilson interval and holds the point estimate."""
    hits, n = counts
    if n == 0:
        assert wilson_interval(0, 0) == (0.0, 1.0)
        return
    low, high = wilson_interval(hits, n)
    assert (low, high) == pytest.approx(proportion_confint(hits, n, method="wilson"), abs=1e-9)
    assert low <= hits / n <= high


@given(COUNTS, st.sampled_from([0.02, 0.05, 0.1, 0.3]))
def test_needed_n_below_is_enough(counts: tuple[int, int], limit: float) -> None:
    """The n that is named shows the limit at the observed rate, and is not below what was seen."""
    bad, n = counts
    needed = needed_n_below(bad, n, limit)
    if needed is None:
        assert n == 0 or bad / n > 0.9 * limit
        return
    rate = bad / n if n else 0.0
    assert needed >= n
    assert upper_bound(min(needed, -int(-rate * needed // 1)), needed) < limit


def test_needed_n_names_the_known_sizes() -> None:
    """No failures so far need 59 for 5 %, and a rate at or beyond the limit needs no sample."""
    assert needed_n_below(0, 10, 0.05) == 59
    assert needed_n_below(5, 100, 0.05) is None
    assert needed_n_above(3, 10, 0.3) is None
    assert needed_n_above(10, 10, 0.3) == 10


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_impossible_counts_are_refused(hits: int, n: int) -> None:
    """A count outside 0..n is a bug of the caller and raises."""
    with pytest.raises(ValueError, match="not a count"):
        upper_bound(hits, n)
