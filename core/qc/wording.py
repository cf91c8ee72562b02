"""Numbers of a `MetricResult` as people read them, the same in the terminal and in the report."""

from __future__ import annotations

from core.qc.verdicts import MetricResult

NOTHING = "–"


def count_text(result: MetricResult) -> str:
    """`numerator / denominator`, or a dash where nothing was counted."""
    if result.numerator is None or result.denominator is None:
        return NOTHING if result.denominator is None else f"n = {result.denominator:,}"
    return f"{result.numerator:,} / {result.denominator:,}"


def value_text(result: MetricResult) -> str:
    """Point value in its own unit."""
    if result.value is None:
        return NOTHING
    if result.unit == "ratio":
        return percent(result.value)
    if result.unit == "bool":
        return "yes" if result.value else "no"
    return f"{result.value:,.10g}"


def interval_text(result: MetricResult) -> str:
    """Two-sided Wilson interval, low to high."""
    if result.interval is None:
        return NOTHING
    low, high = result.interval
    return f"{percent(low)} – {percent(high)}"


def bound_text(result: MetricResult) -> str:
    """Exact one-sided bound with its direction."""
    if result.bound is None or result.value is None:
        return NOTHING
    return f"{'≤' if result.bound >= result.value else '≥'} {percent(result.bound)}"


def percent(ratio: float) -> str:
    """Two decimals below 10 %, one from there on."""
    return f"{ratio:.2%}" if ratio < 0.1 else f"{ratio:.1%}"
