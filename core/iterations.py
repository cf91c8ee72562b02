"""Iterations side by side: parameters, metrics with bounds, cost, and whether advice helped.

Works on plain records, from the store or from a file (`examples/reference_run.yaml`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from core.tuning import TuningValue

Change = Literal["better", "worse", "same", "unknown"]


@dataclass(frozen=True)
class MetricPoint:
    """A metric of one iteration: value, exact bound and limit in `unit`; `lower_is_better` tells the side."""

    value: float | None
    bound: float | None = None
    limit: float | None = None
    verdict: str = "not_measured"
    unit: str = "ratio"


@dataclass(frozen=True)
class IterationRecord:
    """One iteration as people compare it.

    Attributes:
        changes: what it changed against the one before, by parameter name.
        advised: what the reviewer had proposed for it (None: there was no advice).
        kept: accepted pairs. seconds: computing. cost_usd_micros: all that it cost.
        decision: what was decided after it, None while nobody has.
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
class MetricChange:
    """How one metric moved from an iteration to the next."""

    metric: str
    before: float | None
    after: float | None
    change: Change
