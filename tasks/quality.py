"""The dataset and its quality report, as sealed artifacts and as Prefect artifacts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from core.config import RunConfig
from core.files import write_text
from core.generation.journal import Journal
from core.generation.loop import funnel
from core.progress import ProgressEvent, emit
from core.qc.funnel import FunnelCounts
from core.qc.judge import judge
from core.qc.report import write_report
from core.qc.rows import QCRow
from core.qc.verdicts import MetricResult, QCReport
from tasks.generation import JOURNAL

ACCEPTED_FILE = "accepted.jsonl"


@task(name="write-dataset", cache_policy=NO_CACHE)
def write_dataset(journal_folder: Path, folder: Path) -> int:
    """Write the accepted pairs as `accepted.jsonl`; how many there are."""
    accepted = [
        record for record in Journal(journal_folder / JOURNAL).records("pair") if record["fate"] == "accepted"
    ]
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in accepted]
    write_text(folder / ACCEPTED_FILE, "".join(lines))
    return len(accepted)


@task(name="judge-quality", cache_policy=NO_CACHE)
def judge_quality(
    config: RunConfig,
    journal_folder: Path,
    folder: Path,
    certificates: dict[str, Any],
    sentinels_ok: bool,
) -> dict[str, Any]:
    """Judge all response candidates, write `qc_summary.json` and the HTML report; the summary."""
    emit(ProgressEvent("qc", "judging all candidates"))
    journal = Journal(journal_folder / JOURNAL)
    report = judge(
        [_row(record) for record in journal.records("pair")],
        thresholds=config.qc,
        funnel=FunnelCounts(**(funnel(journal) | _duplicates(journal))),
        sentinels_ok=sentinels_ok,
        requested=config.target.count,
    )
    pair = certificates["pair"]["chosen"]
    extra = {
        "run": config.run.name,
        "model": config.model.source,
        "critics": {subject: entry["chosen"]["verdict"] for subject, entry in certificates.items()},
        "margin_nats": pair["margin_nats"] if pair["informative"] else None,
    }
    write_report(report, folder, title=f"QC of {config.run.name}", extra=extra)
    _publish(report, config.run.name)
    return report.to_dict()


def _row(record: dict[str, Any]) -> QCRow:
    critique = record.get("critique") or {}
    return QCRow(
        id=record["id"],
        instruction=record["instruction"],
        response=record["response"],
        raw=record["raw"],
        finish_reason=record["finish_reason"],
        response_tokens=record["response_tokens"],
        kept=record["fate"] == "accepted",
        score=critique.get("score"),
        label_flip=critique.get("flip"),
    )


def _duplicates(journal: Journal) -> dict[str, int]:
    reasons = [record["reason"] for record in journal.records("instruction")]
    kinds = {
        "exact": "duplicate_exact",
        "near": "duplicate_near",
        "seed": "duplicate_seed",
        "held_out": "duplicate_heldout",
    }
    return {f"duplicates_{name}": reasons.count(reason) for name, reason in kinds.items()}


def _publish(report: QCReport, run_name: str) -> None:
    """The verdict and its table as Prefect artifacts, to be read in the UI."""
    reasons = "\n".join(f"- {reason}" for reason in report.reasons) or "- every gate metric holds"
    samples = "\n\n".join(
        f"> **Instruction:** {_quote(s.instruction)}\n>\n> **Response:** {_quote(s.response)}"
        for s in report.kept_samples[:5]
    )
    create_markdown_artifact(
        key="qc-verdict",
        description=f"QC verdict of {run_name}",
        markdown=f"# QC verdict: {report.verdict}\n\n{report.kept} kept of {report.candidates} "
        f"response candidates.\n\n{reasons}\n\n## Five kept pairs, drawn at random\n\n{samples}\n",
    )
    create_table_artifact(
        key="qc-table",
        description=f"QC metrics of {run_name}",
        table=[table_row(metric) for metric in report.metrics],
    )


def _quote(text: str) -> str:
    """Generated text as inert markdown: every line quoted, no markup of its own."""
    escaped = "".join(f"\\{c}" if c in r"\`*_{}[]<>()#+-!|" else c for c in text)
    return escaped.replace("\n", "\n> ")


def table_row(metric: MetricResult) -> dict[str, str]:
    """One metric as people read it: counts, point, exact bound, limit, verdict."""
    counted = "" if metric.numerator is None else f"{metric.numerator} / {metric.denominator}"
    percent = metric.unit == "ratio"

    def shown(value: float | None) -> str:
        if value is None:
            return ""
        return f"{100 * value:.1f} %" if percent else f"{value:g}"

    return {
        "metric": metric.name,
        "count": counted,
        "value": shown(metric.value),
        "bound": shown(metric.bound),
        "limit": metric.limit_text,
        "verdict": metric.verdict,
        "why": metric.why,
    }
