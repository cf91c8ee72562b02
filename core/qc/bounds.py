"""Exact one-sided bounds that verdicts rest on, and the Wilson interval that people are shown.

Clopper-Pearson inverts the binomial test: Clopper and Pearson, Biometrika 26 (1934). Wilson:
JASA 22 (1927). Both treat candidates as independent draws of one generating process; near-duplicate
candidates make them optimistic, which is why duplicates are dropped while generating.
"""

from __future__ import annotations

import math
from collections.abc import Callable

MAX_NEEDED_N = 1_000_000


def upper_bound(bad: int, n: int, confidence: float = 0.95) -> float:
    """Greatest ratio that `bad` of `n` does not refute at one-sided `confidence`; 1.0 for n = 0."""
    _check_counts(bad, n)
    if bad == n:
        return 1.0
    from scipy.stats import beta

    return float(beta.ppf(confidence, bad + 1, n - bad))


def lower_bound(good: int, n: int, confidence: float = 0.95) -> float:
    """Least ratio that `good` of `n` does not refute at one-sided `confidence`; 0.0 for n = 0."""
    _check_counts(good, n)
    if good == 0:
        return 0.0
    from scipy.stats import beta

    return float(beta.ppf(1.0 - confidence, good, n - good + 1))


def wilson_interval(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided Wilson score interval of a ratio; (0, 1) for n = 0."""
    _check_counts(hits, n)
    if n == 0:
        return (0.0, 1.0)
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + confidence / 2))
    ratio, shrink = hits / n, 1 + z * z / n
    centre = (ratio + z * z / (2 * n)) / shrink
    half = z * math.sqrt(ratio * (1 - ratio) / n + z * z / (4 * n * n)) / shrink
    # At 0 and n the interval touches the edge exactly; rounding must not push it past the estimate.
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == n else min(1.0, centre + half)
    return (low, high)


def needed_n_below(bad: int, n: int, limit: float, confidence: float = 0.95) -> int | None:
    """Sample size that would show "< limit" at the observed rate; None where none up to 10^6 would.

    Bad items are rounded up to whole ones at each size, so the number is never too hopeful.
    """
    rate = bad / n if n else 0.0
    if rate >= limit:
        return None
    return _least_n(max(n, 1), lambda m: upper_bound(math.ceil(rate * m), m, confidence) < limit)


def needed_n_above(good: int, n: int, limit: float, confidence: float = 0.95) -> int | None:
    """Sample size at which the observed rate would show ">= limit"; None where none would."""
    rate = good / n if n else 1.0
    if rate <= limit:
        return None
    return _least_n(max(n, 1), lambda m: lower_bound(math.floor(rate * m), m, confidence) >= limit)


def _least_n(start: int, shown: Callable[[int], bool]) -> int | None:
    """Doubling, then bisection; both ends are tested, as rounding makes `shown` ragged."""
    high = start
    while not shown(high):
        high *= 2
        if high > MAX_NEEDED_N:
            return None
    low = max(start - 1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        if shown(middle):
            high = middle
        else:
            low = middle
    return high


def _check_counts(hits: int, n: int) -> None:
    if n < 0 or not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n} is not a count: it must be between 0 and n")
