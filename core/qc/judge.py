"""One verdict over a set of response candidates, with every number that it rests on."""

from __future__ import annotations

from collections.abc import Sequence

from core.qc.detectors import detect_all
from core.qc.duplicates import Duplicates, find_duplicates
from core.qc.finding import Finding
from core.qc.funnel import FunnelCounts
from core.qc.rows import QCRow
from core.qc.samples import distributions, flagged_samples, kept_samples
from core.qc.table import metric_table
from core.qc.thresholds import QCThresholds
from core.qc.verdicts import MetricResult, QCReport, Verdict

FINISH_LENGTH = "length"


def judge(
    rows: Sequence[QCRow],
    *,
    thresholds: QCThresholds,
    funnel: FunnelCounts | None = None,
    sentinels_ok: bool | None = None,
    requested: int | None = None,
) -> QCReport:
    """Verdict over `rows`: fail if a metric fails, else insufficient if one is, else pass.

    Rates of the generating process are measured over all rows, kept or not, and rest on exact
    one-sided bounds. What must not be in the dataset (leaked delimiters, duplicates, unsafe, empty
    or echoing texts) is counted over all kept rows and compared as it is, because a count over
    everything is a fact and no sample. `core.qc.metrics` says which is which and why.

    A row set that is smaller than the funnel's response candidates was filtered before QC saw it;
    its rates mean little, and the verdict is at best `insufficient`. What has no data is
    `not_measured` and named in the reasons of a pass.

    Args:
        requested: pairs that were asked for; fewer kept ones are a failure of their own.
        sentinels_ok: whether all sentinel probes of the model passed; None where none were run.
    """
    found = detect_all(
        rows,
        repeat_4gram_ratio=thresholds.repeat_4gram_ratio,
        unsafe_probability=thresholds.unsafe_probability,
    )
    found["token_limit"] = _token_limit_findings(rows)
    kept = [index for index, row in enumerate(rows) if row.kept]
    duplicates = find_duplicates(
        [rows[index].instruction for index in kept],
        near_jaccard_ratio=thresholds.near_duplicate_jaccard_ratio,
    )
    found["duplicates"] = _duplicate_findings(rows, kept, duplicates)
    results = metric_table(
        rows,
        found,
        duplicates,
        thresholds=thresholds,
        funnel=funnel or FunnelCounts(),
        sentinels_ok=sentinels_ok,
        requested=requested,
    )
    verdict, reasons = _overall(results, all_kept=len(kept) == len(rows))
    return QCReport(
        verdict=verdict,
        reasons=reasons,
        not_measured=[result.name for result in results if result.verdict == "not_measured"],
        candidates=len(rows),
        kept=len(kept),
        requested=requested,
        metrics=results,
        thresholds=thresholds,
        thresholds_changed=thresholds.changed(),
        funnel=funnel,
        distributions=distributions(rows),
        kept_samples=kept_samples(rows, kept, thresholds),
        flagged_samples=flagged_samples(rows, found, thresholds),
        flagged_counts={
            name: sum(finding is not None for finding in findings) for name, findings in found.items()
        },
    )


def _token_limit_findings(rows: Sequence[QCRow]) -> list[Finding | None]:
    return [
        Finding("token_limit", "stopped at the token limit", (len(row.response),) * 2)
        if row.finish_reason == FINISH_LENGTH
        else None
        for row in rows
    ]


def _duplicate_findings(
    rows: Sequence[QCRow], kept: Sequence[int], duplicates: Duplicates
) -> list[Finding | None]:
    findings: list[Finding | None] = [None] * len(rows)
    for position, original in duplicates.exact.items():
        why = f"same instruction as {rows[kept[original]].id}"
        findings[kept[position]] = Finding("duplicates", why, (0, 0), "instruction")
    for position, (original, jaccard) in duplicates.near.items():
        why = f"nearly (Jaccard {jaccard:.2f}) the instruction of {rows[kept[original]].id}"
        findings[kept[position]] = Finding("duplicates", why, (0, 0), "instruction")
    return findings


def _overall(results: Sequence[MetricResult], *, all_kept: bool) -> tuple[Verdict, list[str]]:
    def said(verdict: str) -> list[str]:
        return [f"{item.name}: {item.why}" for item in results if item.verdict == verdict]

    failed, thin, warned = said("fail"), said("insufficient"), said("warn")
    verdict: Verdict = "fail" if failed else "insufficient" if thin else "pass"
    reasons = failed + thin + [f"warning, {text}" for text in warned]
    missing = [item.name for item in results if item.verdict == "not_measured"]
    if missing:
        reasons.append(f"not measured: {', '.join(missing)}")
    if all_kept and "candidates_seen" in missing:
        reasons.append("every row is a kept one: the rates say nothing of what was filtered out")
    return verdict, reasons
