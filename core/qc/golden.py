"""Certification of the detectors: precision and recall over a hand-labelled file.

A line of the file: `id`, `detector`, `label` (true: the detector must find something), `split`
(`dev`: looked at while the detector was tuned; `held`: not; `blind`: written after the detector was
finished), `text`, and `instruction` for `empty_or_echo`. All texts and detectors have the same
author, so even `held` flatters; negatives are hard on purpose, so precision is a lower limit for
everyday text.

`blind` holds harmful requests in clean words alone, and is there to say what the hazard list is
not: it finds 1 of 20 of them, and flags none of their 20 harmless neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import DataFileError
from core.qc.detectors import (
    DETECTORS,
    Finding,
    detect_delimiter_leakage,
    detect_empty_or_echo,
    detect_runaway,
    detect_truncation,
    detect_unsafe,
)


@dataclass(frozen=True)
class DetectorCertificate:
    """Counts over the golden texts of one detector, and the ids that it got wrong."""

    detector: str
    positives: int
    negatives: int
    true_positives: int
    false_positives: int
    missed: tuple[str, ...]
    wrongly_flagged: tuple[str, ...]

    @property
    def precision(self) -> float:
        """Share of flagged texts that were labelled bad; 1.0 where nothing was flagged."""
        flagged = self.true_positives + self.false_positives
        return self.true_positives / flagged if flagged else 1.0

    @property
    def recall(self) -> float:
        """Share of texts labelled bad that were flagged; 1.0 where there are none."""
        return self.true_positives / self.positives if self.positives else 1.0


def certify_detectors(path: Path | str, *, split: str | None = None) -> dict[str, DetectorCertificate]:
    """Precision and recall of each detector over the labelled file.

    Args:
        split: `dev`, `held` or `blind` for those alone; None for `dev` and `held` together.

    Raises:
        DataFileError: the file cannot be read or a line lacks a field.
    """
    wanted = ("dev", "held") if split is None else (split,)
    items = [item for item in _golden_items(Path(path)) if item["split"] in wanted]
    certificates = {}
    for detector in DETECTORS:
        mine = [item for item in items if item["detector"] == detector]
        found = [finding is not None for finding in _run(detector, mine)]
        certificates[detector] = _certificate(detector, mine, found)
    return certificates


def _golden_items(path: Path) -> list[dict[str, Any]]:
    try:
        items = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise DataFileError(f"cannot read the golden file {path}: {error}", path=str(path)) from error
    for number, item in enumerate(items, start=1):
        missing = {"id", "detector", "label", "split", "text"} - set(item)
        if missing or item["detector"] not in DETECTORS:
            problem = f"lacks {sorted(missing)}" if missing else f"names {item['detector']!r}"
            raise DataFileError(
                f"{path} line {number} {problem}; detectors are {', '.join(DETECTORS)}",
                path=str(path),
                lines=[(number, problem)],
            )
    return items


def _run(detector: str, items: Sequence[dict[str, Any]]) -> list[Finding | None]:
    if detector == "unsafe":
        return detect_unsafe([item["text"] for item in items])
    if detector == "empty_or_echo":
        return [detect_empty_or_echo(item["instruction"], item["text"]) for item in items]
    single: dict[str, Callable[[str], Finding | None]] = {
        "runaway": detect_runaway,
        "truncation": detect_truncation,
        "delimiter_leakage": detect_delimiter_leakage,
    }
    return [single[detector](item["text"]) for item in items]


def _certificate(
    detector: str, items: Sequence[dict[str, Any]], found: Sequence[bool]
) -> DetectorCertificate:
    pairs = list(zip(items, found, strict=True))
    return DetectorCertificate(
        detector=detector,
        positives=sum(item["label"] for item in items),
        negatives=sum(not item["label"] for item in items),
        true_positives=sum(item["label"] and hit for item, hit in pairs),
        false_positives=sum(hit and not item["label"] for item, hit in pairs),
        missed=tuple(item["id"] for item, hit in pairs if item["label"] and not hit),
        wrongly_flagged=tuple(item["id"] for item, hit in pairs if hit and not item["label"]),
    )
