"""The lines of the QC table: which rows and counts go into which metric, under which limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from core.qc import metrics
from core.qc.duplicates import Duplicates
from core.qc.finding import Finding
from core.qc.funnel import FunnelCounts
from core.qc.rows import QCRow
from core.qc.samples import row_tokens
from core.qc.thresholds import QCThresholds
from core.qc.verdicts import MetricResult

Findings = Mapping[str, Sequence[Finding | None]]


def metric_table(
    rows: Sequence[QCRow],
    found: Findings,
    duplicates: Duplicates,
    *,
    thresholds: QCThresholds,
    funnel: FunnelCounts,
    sentinels_ok: bool | None,
    requested: int | None,
) -> list[MetricResult]:
    """All metrics of METHOD section 6, in the order in which people read them."""
    kept = [index for index, row in enumerate(rows) if row.kept]
    return [
        _kept_pairs(len(kept), len(rows), requested),
        _coverage(len(rows), funnel),
        *_process_rates(rows, found, thresholds),
        *_kept_facts(rows, found, kept, thresholds),
        *_duplicate_metrics(duplicates, len(kept), funnel, thresholds),
        _median_tokens(rows, thresholds),
        *_acceptances(funnel, thresholds),
        _flips(rows, thresholds),
        _sentinels(sentinels_ok),
    ]


def _kept_pairs(kept: int, candidates: int, requested: int | None) -> MetricResult:
    least = 1 if requested is None else requested
    short = kept < least
    if requested is None:
        why = f"{kept} of {candidates} candidates kept"
    else:
        why = f"{kept} kept of {requested} requested"
    return MetricResult(
        "kept_pairs",
        "insufficient" if not candidates and not requested else "fail" if short else "pass",
        "there are no candidates" if not candidates else why,
        unit="count",
        basis="count",
        scope="kept",
        numerator=kept,
        denominator=candidates,
        value=float(kept),
        limit=float(least),
        limit_text=f"≥ {least}",
    )


def _coverage(rows: int, funnel: FunnelCounts) -> MetricResult:
    name, limit_text = "candidates_seen", "all"
    if funnel.response_candidates is None:
        why = "no funnel counts: whether these are all candidates is not known"
        return metrics.not_measured(name, why, scope="funnel", limit_text=limit_text)
    missing = funnel.response_candidates - rows
    why = f"QC saw {rows} of {funnel.response_candidates} response candidates"
    if missing > 0:
        why += "; hand in all of them, before filtering"
    return MetricResult(
        name,
        "insufficient" if missing > 0 else "pass",
        why,
        unit="count",
        basis="count",
        scope="funnel",
        numerator=rows,
        denominator=funnel.response_candidates,
        value=float(rows),
        limit=float(funnel.response_candidates),
        limit_text=limit_text,
    )


def _process_rates(rows: Sequence[QCRow], found: Findings, thresholds: QCThresholds) -> list[MetricResult]:
    limits = {
        "runaway": thresholds.max_runaway_ratio,
        "token_limit": thresholds.max_token_limit_ratio,
        "truncation": thresholds.max_truncation_ratio,
    }
    return [
        _finish_rate(rows, found, thresholds)
        if name == "token_limit"
        else _bad_rate(name, rows, found[name], limit, thresholds)
        for name, limit in limits.items()
    ]


def _bad_rate(
    name: str,
    rows: Sequence[QCRow],
    findings: Sequence[Finding | None],
    limit: float,
    thresholds: QCThresholds,
    scope: str = "all response candidates",
) -> MetricResult:
    flagged = [finding is not None for finding in findings]
    in_kept = [hit for row, hit in zip(rows, flagged, strict=True) if row.kept]
    return metrics.bad_rate(
        name,
        sum(flagged),
        len(rows),
        limit=limit,
        confidence=thresholds.confidence,
        min_candidates=thresholds.min_candidates,
        scope=scope,
        kept=(sum(in_kept), len(in_kept)),
    )


def _finish_rate(rows: Sequence[QCRow], found: Findings, thresholds: QCThresholds) -> MetricResult:
    name, limit = "token_limit", thresholds.max_token_limit_ratio
    known = [index for index, row in enumerate(rows) if row.finish_reason is not None]
    if not known:
        why = "no row has a finish_reason"
        return metrics.not_measured(name, why, scope="all response candidates", limit_text=f"< {limit:.2%}")
    result = _bad_rate(
        name,
        [rows[index] for index in known],
        [found[name][index] for index in known],
        limit,
        thresholds,
        scope="response candidates with a finish_reason",
    )
    missing = len(rows) - len(known)
    if missing and result.verdict == "pass":
        # Those without a reason may be the very ones that were cut: silence is no evidence.
        why = f"{missing} of {len(rows)} candidates have no finish_reason"
        return metrics.downgraded(result, "insufficient", why)
    return result


def _kept_facts(
    rows: Sequence[QCRow], found: Findings, kept: Sequence[int], thresholds: QCThresholds
) -> list[MetricResult]:
    facts = (
        ("delimiter_leakage", thresholds.max_delimiter_leaks_kept, "hold a format marker"),
        ("unsafe", thresholds.max_unsafe_kept, "are unsafe (instruction or response)"),
        ("empty_or_echo", thresholds.max_empty_or_echo_kept, "are empty or echo the instruction"),
    )
    return [
        metrics.kept_count(
            name,
            sum(found[name][index] is not None for index in kept),
            len(kept),
            most=most,
            what=what,
        )
        for name, most, what in facts
    ]


def _duplicate_metrics(
    duplicates: Duplicates, kept: int, funnel: FunnelCounts, thresholds: QCThresholds
) -> list[MetricResult]:
    near = max(len(duplicates.near), funnel.near_duplicates_kept or 0)
    distinct = kept - len(duplicates.exact)
    return [
        metrics.kept_count(
            "exact_duplicates",
            len(duplicates.exact),
            kept,
            most=thresholds.max_exact_duplicates_kept,
            what="repeat an earlier instruction",
        ),
        metrics.kept_share(
            "near_duplicates",
            min(near, distinct),
            distinct,
            limit=thresholds.max_near_duplicate_kept_ratio,
            scope="distinct kept instructions",
        ),
    ]


def _median_tokens(rows: Sequence[QCRow], thresholds: QCThresholds) -> MetricResult:
    name, most = "median_response_tokens", thresholds.warn_median_response_tokens
    kept = [row for row in rows if row.kept]
    if not kept:
        return metrics.not_measured(name, "no row was kept", scope="kept", limit_text=f"< {most:g} (warn)")
    value = float(median(row_tokens(row) for row in kept))
    estimated = sum(row.response_tokens is None for row in kept)
    note = f"; {estimated} of {len(kept)} estimated as words, no token count" if estimated else ""
    return MetricResult(
        name,
        "warn" if value >= most else "pass",
        f"{value:g} tokens, a warning from {most:g}{note}",
        unit="tokens",
        basis="warn_only",
        scope="kept",
        denominator=len(kept),
        value=value,
        limit=most,
        limit_text=f"< {most:g} (warn)",
    )


def _acceptances(funnel: FunnelCounts, thresholds: QCThresholds) -> list[MetricResult]:
    return [
        _acceptance(
            "instruction_acceptance",
            funnel.instructions_accepted,
            funnel.instructions_judged,
            (
                thresholds.min_instruction_acceptance_ratio,
                thresholds.warn_instruction_acceptance_ratio,
            ),
            thresholds,
        ),
        _acceptance(
            "pair_acceptance",
            funnel.pairs_accepted,
            funnel.pairs_judged,
            (thresholds.min_pair_acceptance_ratio, thresholds.warn_pair_acceptance_ratio),
            thresholds,
        ),
    ]


def _acceptance(
    name: str,
    accepted: int | None,
    judged: int | None,
    limits: tuple[float, float],
    thresholds: QCThresholds,
) -> MetricResult:
    pass_ratio, warn_ratio = limits
    if accepted is None or judged is None:
        return metrics.not_measured(
            name,
            "no critic counts were given",
            scope="judged by the critic",
            limit_text=f"≥ {pass_ratio:.0%} (warn ≥ {warn_ratio:.0%})",
        )
    return metrics.acceptance(
        name,
        accepted,
        judged,
        pass_ratio=pass_ratio,
        warn_ratio=warn_ratio,
        confidence=thresholds.confidence,
        min_candidates=thresholds.min_candidates,
        scope="judged by the critic",
    )


def _flips(rows: Sequence[QCRow], thresholds: QCThresholds) -> MetricResult:
    name, limit = "critic_flip_rate", thresholds.warn_critic_flip_ratio
    flips = [row.label_flip for row in rows if row.label_flip is not None]
    scope = "candidates judged under both label assignments"
    if not flips:
        why = "no row says whether the critic's label assignments agreed"
        return metrics.not_measured(name, why, scope=scope, limit_text=f"≤ {limit:.0%} (warn)")
    return metrics.warn_rate(
        name,
        sum(flips),
        len(flips),
        limit=limit,
        confidence=thresholds.confidence,
        scope=scope,
    )


def _sentinels(ok: bool | None) -> MetricResult:
    if ok is None:
        return metrics.not_measured(
            "sentinels", "no sentinel probes were run", scope="model", limit_text="all pass"
        )
    return MetricResult(
        "sentinels",
        "pass" if ok else "fail",
        "all sentinel probes passed" if ok else "a sentinel probe failed",
        unit="bool",
        basis="count",
        scope="model",
        value=float(ok),
        limit=1.0,
        limit_text="all pass",
    )
