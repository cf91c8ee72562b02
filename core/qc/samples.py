"""Rows and numbers that people look at: random and flagged samples, and what the plots draw."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from core.qc.finding import Finding
from core.qc.rows import QCRow
from core.qc.thresholds import QCThresholds
from core.qc.verdicts import Distributions, Sample


def distributions(rows: Sequence[QCRow]) -> Distributions:
    """Token lengths, critic scores and finish reasons of kept and rejected candidates."""
    reasons = Counter("not recorded" if row.finish_reason is None else row.finish_reason for row in rows)
    return Distributions(
        kept_tokens=[row_tokens(row) for row in rows if row.kept],
        rejected_tokens=[row_tokens(row) for row in rows if not row.kept],
        tokens_estimated=any(row.response_tokens is None for row in rows),
        kept_scores=[row.score for row in rows if row.kept and row.score is not None],
        rejected_scores=[row.score for row in rows if not row.kept and row.score is not None],
        finish_reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    )


def row_tokens(row: QCRow) -> int:
    """Tokens of a response; its words where nobody counted tokens."""
    return len(row.response.split()) if row.response_tokens is None else row.response_tokens


def kept_samples(rows: Sequence[QCRow], kept: Sequence[int], thresholds: QCThresholds) -> list[Sample]:
    """Up to `max_samples` kept rows, drawn at random with `sample_seed`."""
    chosen = _choose(kept, thresholds, "kept")
    return [_sample(rows[index], None) for index in chosen]


def flagged_samples(
    rows: Sequence[QCRow], found: Mapping[str, Sequence[Finding | None]], thresholds: QCThresholds
) -> dict[str, list[Sample]]:
    """Up to `max_samples` rows per detector that flagged any, each with what it saw."""
    flagged = {
        name: [index for index, finding in enumerate(findings) if finding is not None]
        for name, findings in found.items()
    }
    return {
        name: [_sample(rows[index], found[name][index]) for index in _choose(hits, thresholds, name)]
        for name, hits in flagged.items()
        if hits
    }


def _choose(indices: Sequence[int], thresholds: QCThresholds, name: str) -> list[int]:
    """The same rows for the same seed, whatever other detectors found."""
    source = random.Random(f"{thresholds.sample_seed}:{name}")
    return sorted(source.sample(list(indices), min(len(indices), thresholds.max_samples)))


def _sample(row: QCRow, finding: Finding | None) -> Sample:
    return Sample(
        row_id=row.id,
        instruction=row.instruction,
        response=row.response,
        kept=row.kept,
        finish_reason=row.finish_reason,
        score=row.score,
        field=finding.field if finding else None,
        why=finding.why if finding else None,
        span=finding.span if finding else None,
    )
