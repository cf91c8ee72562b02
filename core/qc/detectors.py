"""All detectors in one place: the names, and one call that runs them over many rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.qc.echo import detect_empty_or_echo
from core.qc.finding import Finding
from core.qc.markers import detect_delimiter_leakage
from core.qc.rows import QCRow
from core.qc.runaway import REPEAT_4GRAM_RATIO, detect_runaway
from core.qc.truncation import detect_truncation
from core.qc.unsafe import UNSAFE_PROBABILITY, detect_unsafe

DETECTORS = ("runaway", "truncation", "delimiter_leakage", "unsafe", "empty_or_echo")

__all__ = [
    "DETECTORS",
    "Finding",
    "detect_all",
    "detect_delimiter_leakage",
    "detect_empty_or_echo",
    "detect_runaway",
    "detect_truncation",
    "detect_unsafe",
]


def detect_all(
    rows: Sequence[QCRow],
    *,
    repeat_4gram_ratio: float = REPEAT_4GRAM_RATIO,
    unsafe_probability: float = UNSAFE_PROBABILITY,
) -> dict[str, list[Finding | None]]:
    """Per detector, a finding or None for each row, in row order.

    All read the response; `unsafe` reads the instruction too and reports whichever is unsafe first.
    """
    unsafe = detect_unsafe(
        [row.instruction for row in rows] + [row.response for row in rows],
        unsafe_probability=unsafe_probability,
    )
    in_instructions, in_responses = unsafe[: len(rows)], unsafe[len(rows) :]
    return {
        "runaway": [detect_runaway(row.response, repeat_4gram_ratio=repeat_4gram_ratio) for row in rows],
        "truncation": [detect_truncation(row.response) for row in rows],
        "delimiter_leakage": [detect_delimiter_leakage(row.response) for row in rows],
        "unsafe": [
            replace(asked, field="instruction") if asked else said
            for asked, said in zip(in_instructions, in_responses, strict=True)
        ],
        "empty_or_echo": [detect_empty_or_echo(row.instruction, row.response) for row in rows],
    }
