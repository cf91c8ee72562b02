"""Iterations side by side: parameters, metrics with bounds, cost, and whether advice helped.

Works on plain records, from the store or from a file such as `examples/reference_run.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import yaml

from core.errors import DataFileError
from core.tuning import TUNABLES, TuningValue, shown

Effect = Literal["better", "worse", "same", "unknown"]

# Less is better unless named here; everything else in a QC table counts what went wrong.
HIGHER_IS_BETTER = ("instruction_acceptance", "pair_acceptance", "kept_pairs", "sentinels", "candidates_seen")
NO_QUALITY = ("candidates_seen", "median_response_tokens")
"""How much was looked at and how long answers are say nothing of better or worse."""
NOISE_RATIO = 0.005
"""Ratios that differ by less than half a point count as the same: one item in 200."""


@dataclass(frozen=True)
class MetricPoint:
    """A metric of one iteration: value, exact one-sided bound and limit, all in `unit`."""

    value: float | None
    bound: float | None = None
    limit: float | None = None
    verdict: str = "not_measured"
    unit: str = "ratio"

    def text(self) -> str:
        """`1.1 % (≤ 2.3 %) insufficient`."""
        if self.value is None:
            return "–" if self.verdict == "not_measured" else f"{self.verdict} (no number recorded)"
        percent = self.unit == "ratio"
        value = f"{100 * self.value:.1f} %" if percent else f"{self.value:g}"
        if self.bound is not None:
            side = "≤" if self.bound >= self.value else "≥"
            value += f" ({side} {100 * self.bound:.1f} %)" if percent else f" ({side} {self.bound:g})"
        return f"{value} {self.verdict.replace('_', ' ')}"


@dataclass(frozen=True)
class IterationRecord:
    """One iteration as people compare it.

    Attributes:
        changes: what it changed against the one before, by parameter name.
        advised: what the reviewer had proposed for it; None where there was no advice.
        kept: accepted pairs. seconds: computing. cost_usd_micros: device and reviews.
        decision: what was decided after it; None while nobody has.
    """

    number: int
    seed: int
    parameters: Mapping[str, TuningValue]
    metrics: Mapping[str, MetricPoint] = field(default_factory=dict)
    verdict: str | None = None
    changes: Mapping[str, TuningValue] = field(default_factory=dict)
    advised: Mapping[str, TuningValue] | None = None
    kept: int | None = None
    seconds: float | None = None
    cost_usd_micros: int | None = None
    decision: str | None = None
    note: str = ""


@dataclass(frozen=True)
class MetricMovement:
    """How one metric moved from an iteration to the next."""

    metric: str
    before: float | None
    after: float | None
    effect: Effect


def movements(before: IterationRecord, after: IterationRecord) -> list[MetricMovement]:
    """How every metric that either iteration has moved, in the order of the earlier one."""
    names = [*before.metrics, *(name for name in after.metrics if name not in before.metrics)]
    return [
        _movement(name, before.metrics.get(name), after.metrics.get(name))
        for name in names
        if name not in NO_QUALITY
    ]


def _movement(name: str, before: MetricPoint | None, after: MetricPoint | None) -> MetricMovement:
    old, new = _counted(name, before), _counted(name, after)
    point = after or before
    noise = NOISE_RATIO if point is not None and point.unit == "ratio" else 0.0
    return MetricMovement(name, old, new, effect_of(name, old, new, noise))


def _counted(name: str, point: MetricPoint | None) -> float | None:
    """The value that is compared. Pairs beyond what was asked for are chance, not merit."""
    if point is None or point.value is None:
        return None
    if name == "kept_pairs" and point.limit is not None:
        return min(point.value, point.limit)
    return point.value


def effect_of(metric: str, before: float | None, after: float | None, noise: float = 0.0) -> Effect:
    """Whether a metric got better; a difference of at most `noise` is none."""
    if before is None or after is None:
        return "unknown"
    if abs(after - before) <= noise:
        return "same"
    rose = after > before
    return "better" if rose == (metric in HIGHER_IS_BETTER) else "worse"


def advice_effect(moved: Sequence[MetricMovement], gate_metrics: Sequence[str]) -> Effect:
    """What advice did on the whole: better where more of the metrics that held the gate up got better.

    Args:
        gate_metrics: metrics that were not passed before; where there are none, all count.
    """
    counted = [m for m in moved if m.metric in gate_metrics] or list(moved)
    better = sum(m.effect == "better" for m in counted)
    worse = sum(m.effect == "worse" for m in counted)
    if not better and not worse:
        return "same" if any(m.effect == "same" for m in counted) else "unknown"
    if better == worse:
        return "same"
    return "better" if better > worse else "worse"


def not_passed(record: IterationRecord) -> list[str]:
    """Metrics that held the gate up: failed or without enough to go on."""
    return [name for name, point in record.metrics.items() if point.verdict in ("fail", "insufficient")]


def comparison_rows(records: Sequence[IterationRecord]) -> list[dict[str, str]]:
    """The iteration table: a row for each fact, a column for each iteration."""
    rows: list[dict[str, str]] = []

    def row(name: str, values: Sequence[str]) -> None:
        if any(value not in ("", "–") for value in values):
            columns = {f"iteration {r.number}": v for r, v in zip(records, values, strict=True)}
            rows.append({"": name, **columns})

    row("seed", [str(r.seed) for r in records])
    for name, tunable in TUNABLES.items():
        row(tunable.title.lower(), [_parameter(r, name) for r in records])
    row("advice before it", [_advice(r) for r in records])
    row("kept pairs", ["–" if r.kept is None else str(r.kept) for r in records])
    for name in dict.fromkeys(name for r in records for name in r.metrics):
        if name != "kept_pairs":
            row(name.replace("_", " "), [_point(r, name) for r in records])
    row("QC verdict", [r.verdict or "–" for r in records])
    row("against the one before", ["–", *(_moved(a, b) for a, b in pairwise(records))])
    row("computing", [_took(r.seconds) for r in records])
    row("cost", [dollars(r.cost_usd_micros) for r in records])
    row("decision", [r.decision or "waiting" for r in records])
    row("note", [r.note for r in records])
    return rows


def _parameter(record: IterationRecord, name: str) -> str:
    if name not in record.parameters:
        return "–"
    return shown(record.parameters[name]) + (" *" if name in record.changes else "")


def _advice(record: IterationRecord) -> str:
    if record.advised is None:
        return "–"
    if not record.advised:
        return "none proposed"
    return ", ".join(f"{name} = {shown(value)}" for name, value in record.advised.items())


def _took(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _point(record: IterationRecord, name: str) -> str:
    point = record.metrics.get(name)
    return "–" if point is None else point.text()


def _moved(before: IterationRecord, after: IterationRecord) -> str:
    moved = movements(before, after)
    parts = [
        f"{effect}: {', '.join(names)}"
        for effect in ("better", "worse")
        if (names := [m.metric.replace("_", " ") for m in moved if m.effect == effect])
    ]
    if not parts and all(m.effect == "unknown" for m in moved):
        return "not comparable"
    return "; ".join(parts) or "no difference"


def dollars(usd_micros: int | None) -> str:
    """Micro-USD as dollars and cents; fractions of a cent where there is nothing more to show."""
    if usd_micros is None:
        return "–"
    usd = usd_micros / 1_000_000
    return f"${usd:,.4f}" if 0 < abs(usd) < 0.01 else f"${usd:,.2f}"


def read_records(path: Path) -> list[IterationRecord]:
    """Iterations of a YAML file: a list under `iterations`, metrics as value or as a mapping.

    Raises:
        DataFileError: the file cannot be read or has another form; says where.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [_record(item) for item in content["iterations"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataFileError(f"cannot read {path}: {error}", lines=[]) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataFileError(
            f"{path} holds no list `iterations` with number, seed and parameters in each: {error!r}; "
            "examples/reference_run.yaml shows the form",
            lines=[],
        ) from error


def _record(item: Mapping[str, Any]) -> IterationRecord:
    unknown = sorted(set(item["parameters"]) - set(TUNABLES))
    if unknown:
        raise ValueError(f"unknown parameters {', '.join(unknown)}")
    metrics = {
        name: MetricPoint(**value) if isinstance(value, Mapping) else MetricPoint(value)
        for name, value in (item.get("metrics") or {}).items()
    }
    if item.get("kept") is not None:
        metrics.setdefault("kept_pairs", MetricPoint(float(item["kept"]), unit="count"))
    return IterationRecord(**{**item, "metrics": metrics})
