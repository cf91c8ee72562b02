"""What judging gives back: one result per metric, samples, and the verdict over all of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from core.qc.funnel import FunnelCounts
from core.qc.thresholds import QCThresholds

MetricVerdict = Literal["pass", "warn", "fail", "insufficient", "not_measured"]
Verdict = Literal["pass", "fail", "insufficient"]
Basis = Literal["bound", "count", "warn_only"]


@dataclass(frozen=True)
class MetricResult:
    """One line of the QC table.

    `value` is the point estimate (a ratio, a count or tokens, as `unit` says). `interval` is the
    two-sided Wilson interval, for display. `bound` is the exact one-sided bound on the bad side
    that the verdict rests on where `basis` is `bound`. `needed_n` is the sample size that would
    decide the matter at the observed rate. `kept_numerator` of `kept_denominator` is the same count
    among kept rows, for information.
    """

    name: str
    verdict: MetricVerdict
    why: str
    unit: Literal["ratio", "count", "tokens", "bool"]
    basis: Basis
    scope: str
    numerator: int | None = None
    denominator: int | None = None
    value: float | None = None
    interval: tuple[float, float] | None = None
    bound: float | None = None
    limit: float | None = None
    limit_text: str = ""
    needed_n: int | None = None
    kept_numerator: int | None = None
    kept_denominator: int | None = None


@dataclass(frozen=True)
class Sample:
    """A row shown to people; `why` and `span` say what a detector saw and where, in `field`."""

    row_id: str
    instruction: str
    response: str
    kept: bool
    finish_reason: str | None = None
    score: float | None = None
    field: str | None = None
    why: str | None = None
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Distributions:
    """Numbers behind the report's plots; tokens per response, critic scores in nats."""

    kept_tokens: list[int]
    rejected_tokens: list[int]
    tokens_estimated: bool
    kept_scores: list[float]
    rejected_scores: list[float]
    finish_reasons: dict[str, int]


@dataclass(frozen=True)
class QCReport:
    """Verdict over a dataset and everything that it rests on."""

    verdict: Verdict
    reasons: list[str]
    not_measured: list[str]
    candidates: int
    kept: int
    requested: int | None
    metrics: list[MetricResult]
    thresholds: QCThresholds
    thresholds_changed: dict[str, tuple[object, object]]
    funnel: FunnelCounts | None
    distributions: Distributions
    kept_samples: list[Sample]
    flagged_samples: dict[str, list[Sample]]
    flagged_counts: dict[str, int] = field(default_factory=dict)

    def metric(self, name: str) -> MetricResult:
        """Result of one metric. Raises KeyError for a name that was not judged."""
        for result in self.metrics:
            if result.name == name:
                return result
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values in a stable key order; what `qc_summary.json` holds."""
        plain = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "thresholds"}
        plain["thresholds"] = self.thresholds.model_dump()
        plain["thresholds_changed"] = {
            name: {"default": default, "now": now} for name, (default, now) in self.thresholds_changed.items()
        }
        plain["metrics"] = {result.name: asdict(result) for result in self.metrics}
        plain["funnel"] = _plain_funnel(self.funnel)
        plain["distributions"] = asdict(self.distributions)
        plain["kept_samples"] = [asdict(sample) for sample in self.kept_samples]
        plain["flagged_samples"] = {
            name: [asdict(sample) for sample in samples] for name, samples in self.flagged_samples.items()
        }
        return plain


def _plain_funnel(funnel: FunnelCounts | None) -> dict[str, Any] | None:
    if funnel is None:
        return None
    plain = {item.name: getattr(funnel, item.name) for item in fields(funnel)}
    # Mappings need not be dicts (a frozen config hands in proxies), JSON knows only dicts.
    return {
        name: dict(sorted(value.items())) if hasattr(value, "items") else value
        for name, value in plain.items()
    }
