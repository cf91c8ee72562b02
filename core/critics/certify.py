"""A critic must prove itself before it may decide (METHOD 5).

Good items and mechanically corrupted ones are scored; AUROC says how well the scores tell them apart.
Below the minimum the critic is `uninformative`: reported, never filtering, opening no gate.
The margin is fitted on the same scores to a target precision. Human-labelled items, where given,
replace the corruptions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from core.critics.base import AcceptRule, Critic, CriticItem
from core.critics.corruption import LabelledItem
from core.errors import DataFileError

Scores = npt.NDArray[np.float64]
MIN_PER_CLASS = 10
MIN_RECALL = 0.1
"""A rule that keeps fewer of the good items than this decides nothing worth having."""


@dataclass(frozen=True)
class Certificate:
    """What a critic is worth on this model and rubric.

    `auroc` with its 95 % DeLong interval; `margin_nats` is what will be used; `precision_ratio` and
    `recall_ratio` are of the whole rule (margin, flips, format) on the certification items, half of
    which are good.
    """

    subject: str
    kind: str
    rubric_hash: str
    source: str
    n_good: int
    n_bad: int
    auroc: float
    auroc_low: float
    auroc_high: float
    auroc_by_corruption: Mapping[str, float]
    flip_ratio: float | None
    median_label_mass_ratio: float | None
    margin_nats: float
    margin_fitted: bool
    min_label_mass_ratio: float
    precision_ratio: float
    recall_ratio: float
    min_auroc: float
    informative: bool
    verdict: str

    @property
    def rule(self) -> AcceptRule:
        """The acceptance rule that this certificate allows."""
        return AcceptRule(self.margin_nats, self.min_label_mass_ratio, decides=self.informative)

    def to_record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"auroc_by_corruption": dict(self.auroc_by_corruption)}


def auroc(good: Scores, bad: Scores) -> float:
    """Share of (good, bad) pairs in which the good one scores higher; ties count half."""
    above = rankdata(np.concatenate([good, bad]))[: len(good)] - rankdata(good)
    return float((above / len(bad)).mean())


def auroc_with_interval(good: Scores, bad: Scores, confidence: float = 0.95) -> tuple[float, float, float]:
    """AUROC and its two-sided interval by the placement values of DeLong et al. 1988.

    Ties count half. With perfect separation the variance is zero; the interval then comes from the
    exact bound for n independent pairs, so that 10 of 10 is not reported as certain.
    """
    ranks = rankdata(np.concatenate([good, bad]))
    m, n = len(good), len(bad)
    above = (ranks[:m] - rankdata(good)) / n
    below = 1 - (ranks[m:] - rankdata(bad)) / m
    area = float(above.mean())
    if area in (0.0, 1.0):
        slack = 1 - ((1 - confidence) / 2) ** (1 / min(m, n))
        return area, max(0.0, area - slack), min(1.0, area + slack)
    spread = float(np.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n))
    reach = float(norm.ppf(0.5 + confidence / 2)) * spread
    return area, max(0.0, area - reach), min(1.0, area + reach)


def fit_margin(good: Scores, bad: Scores, target_precision: float) -> float | None:
    """Smallest margin at which accepted items are at least `target_precision` good, or None.

    Both classes are weighed equally, whatever their sizes.
    """
    for margin in np.unique(np.concatenate([good, bad])):
        hits, slips = float((good >= margin).mean()), float((bad >= margin).mean())
        if hits and hits / (hits + slips) >= target_precision:
            return float(margin)
    return None


def certify(
    critic: Critic,
    items: Sequence[LabelledItem],
    *,
    source: str,
    margin_nats: float | None,
    target_precision: float,
    min_auroc: float,
    min_label_mass_ratio: float,
) -> Certificate:
    """Judge labelled items and measure how well the critic tells good from bad.

    Args:
        source: where the labels come from, `corruptions` or a file.
        margin_nats: a fixed margin; None fits it to `target_precision`.

    Raises:
        DataFileError: fewer than 10 items of either class.
    """
    labels = np.array([item.good for item in items])
    counts = int(labels.sum()), int((~labels).sum())
    if min(counts) < MIN_PER_CLASS:
        raise DataFileError(
            f"certifying the {critic.subject} critic needs {MIN_PER_CLASS} good and {MIN_PER_CLASS} bad "
            f"items, {source} has {counts[0]} and {counts[1]}; give more labelled items"
        )
    critiques = critic.judge([item.item for item in items])
    scores = np.array([critique.score for critique in critiques], dtype=np.float64)
    good, bad = scores[labels], scores[~labels]
    area, low, high = auroc_with_interval(good, bad)
    fitted = fit_margin(good, bad, target_precision) if margin_nats is None else margin_nats
    margin = float(np.max(scores)) if fitted is None else fitted
    trial = AcceptRule(margin, min_label_mass_ratio, decides=True)
    accepted = np.array([trial.rejection(critique) is None for critique in critiques])
    hits, slips = float(accepted[labels].mean()), float(accepted[~labels].mean())
    objection = _objection(area, low, min_auroc, fitted, target_precision, hits)
    flips = [critique.flip for critique in critiques if critique.flip is not None]
    masses = [c.label_mass_ratio for c in critiques if c.label_mass_ratio is not None]
    return Certificate(
        subject=critic.subject,
        kind=critic.kind,
        rubric_hash=critic.rubric_hash,
        source=source,
        n_good=counts[0],
        n_bad=counts[1],
        auroc=area,
        auroc_low=low,
        auroc_high=high,
        auroc_by_corruption=_by_corruption(items, scores, good),
        flip_ratio=float(np.mean(flips)) if flips else None,
        median_label_mass_ratio=float(np.median(masses)) if masses else None,
        margin_nats=margin,
        margin_fitted=margin_nats is None,
        min_label_mass_ratio=min_label_mass_ratio,
        precision_ratio=hits / (hits + slips) if hits + slips else 0.0,
        recall_ratio=hits,
        min_auroc=min_auroc,
        informative=objection is None,
        verdict=f"uninformative: {objection}" if objection else f"informative: AUROC {area:.2f}",
    )


def choose(certificates: Sequence[Certificate]) -> Certificate:
    """The certificate to work with: the informative one with the highest AUROC, else the best of all."""
    return max(certificates, key=lambda c: (c.informative, c.auroc))


def load_labelled(path: Path, subject: str) -> list[LabelledItem]:
    """Human-labelled items of a JSONL file: `instruction`, `response` (for pairs) and boolean `good`.

    Raises:
        DataFileError: unreadable, or broken lines, with all their numbers.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"cannot read labelled file {path}: {error}", lines=[]) from error
    found = {n: _labelled(line, subject) for n, line in enumerate(lines, 1) if line.strip()}
    broken = [number for number, item in found.items() if item is None]
    if broken:
        raise DataFileError(
            f"{path}: lines {', '.join(map(str, broken))} are not objects with "
            f"{'instruction' if subject == 'instruction' else 'instruction, response'} and a boolean good",
            lines=broken,
        )
    return [item for item in found.values() if item is not None]


def _labelled(line: str, subject: str) -> LabelledItem | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("good"), bool):
        return None
    names = ("instruction",) if subject == "instruction" else ("instruction", "response")
    texts = [text for name in names if isinstance(text := row.get(name), str) and text.strip()]
    if len(texts) < len(names):
        return None
    return LabelledItem(CriticItem(*texts), row["good"], None if row["good"] else "labelled_bad")


def _by_corruption(items: Sequence[LabelledItem], scores: Scores, good: Scores) -> dict[str, float]:
    kinds = sorted({item.corruption for item in items if item.corruption})
    return {
        kind: auroc(good, scores[np.array([item.corruption == kind for item in items])]) for kind in kinds
    }


def _objection(
    area: float, low: float, least: float, fitted: float | None, precision: float, recall: float
) -> str | None:
    """Why the critic may not decide, or None."""
    if area < least:
        return f"AUROC {area:.2f} is below {least:.2f}"
    if low <= 0.5:
        return f"the AUROC interval starts at {low:.2f}, a coin toss is not ruled out"
    if fitted is None:
        return f"no margin reaches a precision of {precision:.2f}"
    if recall < MIN_RECALL:
        return f"its rule keeps only {100 * recall:.0f} % of the good items"
    return None
