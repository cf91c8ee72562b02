"""What is asked at the pilot gate: machine checks, numbers, samples and money of one iteration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.errors import StagegateError
from core.provenance.manifest import read_artifact, verify
from core.tuning import tuning_of
from reviews.question import Check, GateQuestion, JudgedArtifact, Outlook
from tasks.gated_run import GatedRun

DATASET = "dataset"
QC_SUMMARY = Path("qc") / "qc_summary.json"
GUARD_REPORT = Path("model") / "guard_report.json"
HIGH_FACTOR = 2.0
"""New unique instructions get rarer with scale: the upper end of the forecast doubles the time for a pair."""


def pilot_question(run: GatedRun, number: int, config: RunConfig) -> GateQuestion:
    """The question about an iteration that has ended.

    Raises:
        BadInputError, IntegrityError: it left no artifact, or one whose manifest was changed.
    """
    folder = run.iteration_folder(number)
    dataset = read_artifact(folder / DATASET)
    summary = read_summary(folder)
    records = tuple(run.records())
    return GateQuestion(
        gate="pilot",
        number=number,
        run_name=run.name,
        project=config.run.project,
        model_source=config.model.source,
        artifact=JudgedArtifact(
            dataset.kind, str(dataset.path), dataset.content_sha256, read_artifact(folder).manifest_sha256
        ),
        config_hash=config.config_hash(),
        checks=_checks(folder, summary),
        metrics=summary["metrics"],
        samples=tuple(summary["kept_samples"]),
        flagged={name: tuple(rows) for name, rows in summary["flagged_samples"].items()},
        parameters=tuning_of(config),
        history=records,
        outlook=_outlook(run, number, summary),
        iterations_left=max(0, run.config.gates.max_iterations - number),
        limits_changed={
            name: (change["default"], change["now"]) for name, change in summary["thresholds_changed"].items()
        },
        links={"QC report": str(folder / "qc" / "qc_report.html")},
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """What QC said of an iteration. Raises OSError or ValueError for a file that is gone or cut off."""
    summary: dict[str, Any] = json.loads((folder / QC_SUMMARY).read_text(encoding="utf-8"))
    return summary


def _checks(folder: Path, summary: dict[str, Any]) -> tuple[Check, ...]:
    guard = json.loads((folder / GUARD_REPORT).read_text(encoding="utf-8"))
    verdict = summary["verdict"]
    reasons = "; ".join(summary["reasons"]) or "every gate metric holds"
    return (
        _chain(folder),
        Check("base model", bool(guard["clean"]), "clean" if guard["clean"] else "the guard refused it"),
        Check("quality control", verdict == "pass", f"{verdict}: {reasons}"),
    )


def _chain(folder: Path) -> Check:
    try:
        links = verify(folder)
    except StagegateError as error:
        return Check("hash chain", False, str(error))
    return Check("hash chain", True, f"{len(links)} artifacts verify")


def _outlook(run: GatedRun, number: int, summary: dict[str, Any]) -> Outlook:
    project = run.config.run.project
    count = run.config.scale.count
    stage = f"scale to {count:,} pairs"
    budget = round(run.config.cost.budget_usd * 1_000_000)
    spent = run.store.spent_usd_micros(project=project)
    record = next(r for r in run.records() if r.number == number)
    kept = int(summary["kept"])
    if not kept or record.seconds is None:
        return Outlook(budget, spent, stage, next_basis="nothing was kept, so nobody can say")
    per_pair_s = record.seconds / kept
    low = round(count * per_pair_s / 3600 * run.config.cost.device_usd_per_hour * 1_000_000)
    hours = count * per_pair_s / 3600
    basis = f"{per_pair_s:.2f} s of device time for a kept pair here, so {hours:.1f} h, or up to twice that"
    return Outlook(budget, spent, stage, low, round(low * HIGH_FACTOR), basis, record.cost_usd_micros)
