"""Single metrics: counts in, a `MetricResult` out.

Three kinds, by what the number is:

* A **rate of the process** (runaway, token limit, truncation, acceptance) is a sample of what the
  same settings will go on producing, so its verdict rests on the exact one-sided bound on the bad
  side. The point estimate decides one thing alone: where it already misses the limit, more
  candidates would not help, and the verdict is `fail` instead of `insufficient`.
* A **fact about the kept set** (leaked delimiters, duplicates, unsafe or empty texts) is counted
  over every kept row. Nothing is estimated, so the count is compared as it is.
* **Warn-only** numbers (median tokens, critic flips) compare the point value and can never fail.

A metric without data is `not_measured`, never zero.
"""

from __future__ import annotations

from dataclasses import replace

from core.qc.bounds import (
    lower_bound,
    needed_n_above,
    needed_n_below,
    upper_bound,
    wilson_interval,
)
from core.qc.verdicts import MetricResult, MetricVerdict


def not_measured(name: str, why: str, *, scope: str, limit_text: str) -> MetricResult:
    """A metric that the data cannot answer; `why` says what is missing."""
    return MetricResult(
        name, "not_measured", why, unit="count", basis="count", scope=scope, limit_text=limit_text
    )


def bad_rate(
    name: str,
    bad: int,
    n: int,
    *,
    limit: float,
    confidence: float,
    min_candidates: int,
    scope: str = "all response candidates",
    kept: tuple[int, int] | None = None,
) -> MetricResult:
    """Judges a bad rate: its upper bound must undercut `limit`."""
    limit_text = f"< {limit:.2%}"
    if n == 0:
        return not_measured(name, "there are no candidates", scope=scope, limit_text=limit_text)
    ratio, bound = bad / n, upper_bound(bad, n, confidence)
    needed: int | None = None
    verdict: MetricVerdict = "pass"
    why = f"at most {bound:.2%} at {confidence:.0%} confidence, limit {limit:.2%}"
    if ratio >= limit:
        verdict = "fail"
        why = f"{bad} of {n} is {ratio:.2%}; it must be below {limit:.2%}"
    elif n < min_candidates or bound >= limit:
        verdict = "insufficient"
        needed = needed_n_below(bad, n, limit, confidence)
        needed = None if needed is None else max(needed, min_candidates)
        why = f"{bad} of {n} can be as much as {bound:.2%}, limit {limit:.2%}; {_needs(needed)}"
        if bound < limit:
            why = f"only {n} candidates, at least {min_candidates} are wanted"
    return MetricResult(
        name,
        verdict,
        why,
        unit="ratio",
        basis="bound",
        scope=scope,
        numerator=bad,
        denominator=n,
        value=ratio,
        interval=wilson_interval(bad, n, confidence),
        bound=bound,
        limit=limit,
        limit_text=f"< {limit:.2%}",
        needed_n=needed,
        kept_numerator=kept[0] if kept else None,
        kept_denominator=kept[1] if kept else None,
    )


def acceptance(
    name: str,
    accepted: int,
    judged: int,
    *,
    pass_ratio: float,
    warn_ratio: float,
    confidence: float,
    min_candidates: int,
    scope: str,
) -> MetricResult:
    """Judges acceptance: its lower bound must reach `pass_ratio`, or `warn_ratio` for a warning."""
    limit_text = f"≥ {pass_ratio:.0%} (warn ≥ {warn_ratio:.0%})"
    if judged == 0:
        return not_measured(name, "nothing was judged", scope=scope, limit_text=limit_text)
    ratio, bound = accepted / judged, lower_bound(accepted, judged, confidence)
    needed: int | None = None
    verdict: MetricVerdict = "pass"
    why = f"at least {bound:.1%} at {confidence:.0%} confidence"
    if ratio < warn_ratio:
        verdict = "fail"
        why = f"{accepted} of {judged} is {ratio:.1%}; it must be at least {warn_ratio:.0%}"
    elif judged < min_candidates or bound < warn_ratio:
        verdict = "insufficient"
        needed = needed_n_above(accepted, judged, warn_ratio, confidence)
        needed = None if needed is None else max(needed, min_candidates)
        why = f"{accepted} of {judged} can be as little as {bound:.1%}; {_needs(needed)}"
        if bound >= warn_ratio:
            why = f"only {judged} judged, at least {min_candidates} are wanted"
    elif bound < pass_ratio:
        verdict = "warn"
        why += f", which is below {pass_ratio:.0%} but not below {warn_ratio:.0%}"
    return MetricResult(
        name,
        verdict,
        why,
        unit="ratio",
        basis="bound",
        scope=scope,
        numerator=accepted,
        denominator=judged,
        value=ratio,
        interval=wilson_interval(accepted, judged, confidence),
        bound=bound,
        limit=pass_ratio,
        limit_text=limit_text,
        needed_n=needed,
    )


def kept_count(name: str, bad: int, kept: int, *, most: int, what: str) -> MetricResult:
    """Judges a count over all kept rows, which may be `most` at the most."""
    if kept == 0:
        return not_measured(name, "no row was kept", scope="kept", limit_text=f"≤ {most}")
    return MetricResult(
        name,
        "fail" if bad > most else "pass",
        f"{bad} of {kept} kept {what}, at most {most} may",
        unit="count",
        basis="count",
        scope="kept",
        numerator=bad,
        denominator=kept,
        value=float(bad),
        limit=float(most),
        limit_text=f"≤ {most}",
    )


def kept_share(name: str, bad: int, n: int, *, limit: float, scope: str) -> MetricResult:
    """Judges a share of the kept set that must stay below `limit`; counted, not estimated."""
    limit_text = f"< {limit:.2%}"
    if n == 0:
        return not_measured(name, "no row was kept", scope=scope, limit_text=limit_text)
    return MetricResult(
        name,
        "fail" if bad / n >= limit else "pass",
        f"{bad} of {n} is {bad / n:.2%}, it must be below {limit:.2%}",
        unit="ratio",
        basis="count",
        scope=scope,
        numerator=bad,
        denominator=n,
        value=bad / n,
        limit=limit,
        limit_text=limit_text,
    )


def warn_rate(name: str, hits: int, n: int, *, limit: float, confidence: float, scope: str) -> MetricResult:
    """Warns where a rate is above `limit`; never fails."""
    return MetricResult(
        name,
        "warn" if hits / n > limit else "pass",
        f"{hits} of {n} is {hits / n:.1%}, a warning from above {limit:.0%}",
        unit="ratio",
        basis="warn_only",
        scope=scope,
        numerator=hits,
        denominator=n,
        value=hits / n,
        interval=wilson_interval(hits, n, confidence),
        limit=limit,
        limit_text=f"≤ {limit:.0%} (warn)",
    )


def downgraded(result: MetricResult, verdict: MetricVerdict, why: str) -> MetricResult:
    """The same numbers under a worse verdict, with the further reason appended."""
    return replace(result, verdict=verdict, why=f"{result.why}; but {why}")


def _needs(needed: int | None) -> str:
    if needed is None:
        return "the observed rate is too near to the limit for any sample to show more"
    return f"at this rate it takes {needed:,} candidates"
