"""Whether a loaded model still works as a language model: its tokenizer and its weights together.

A tokenizer that was converted wrongly makes letters of words and changes no error anywhere; the model
then writes fluent nonsense. Losses, tokens per word and round trips show it before anything is spent.
Limits: damage that leaves the loss on plain English inside the band is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from core.models.losses import SENTENCES, token_losses
from core.models.raw import RawTokenizer, folded
from core.models.report import Check

ROUND_TRIPS = (
    *SENTENCES,
    "Two  spaces,\ta tab\nand a line break.\n\nThen a new paragraph.",
    "Déjà vu in Zürich: naïve façades, señor Núñez and 20 °C.",
    "In 1987 the price rose from 1,234.56 to 98,765 dollars (+12.5%).",
    '1. Name a color.\n2. What\'s "half" of 10?\n3. Explain x < y && y > z; f(a, b) -> [c]',
)


@dataclass(frozen=True)
class HealthBand:
    """Where a working model's plain sentences fall.

    Bundled Gemma 3 270M: 3.25 nats and 1.13 tokens per word; SmolLM2 135M: 3.90 and 1.13. Larger
    models have lower losses. Uniform guessing over 32,000 tokens would be 10.4 nats.
    """

    max_mean_loss_nats: float = 5.5
    max_tokens_per_word_ratio: float = 2.2
    min_mean_loss_nats: float = 0.3


@dataclass(frozen=True)
class HealthReport:
    """What was measured, and the checks made of it."""

    mean_loss_nats: float
    tokens_per_word_ratio: float
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether the model is healthy."""
        return all(check.ok for check in self.checks)


def check_health(loaded: Any, band: HealthBand | None = None) -> HealthReport:
    """Losses (nats per token), tokens per word and round trips of a `LoadedModel` on plain English."""
    band = band or HealthBand()
    raw = RawTokenizer(loaded.tokenizer)
    encoded = [raw.encode(sentence) for sentence in SENTENCES]
    words = sum(len(sentence.split()) for sentence in SENTENCES)
    ratio = sum(map(len, encoded)) / words
    mean = _mean_loss(loaded, encoded)
    checks = (_loss_check(mean, band), _ratio_check(ratio, band), _round_trip_check(raw))
    return HealthReport(mean, ratio, checks)


def _mean_loss(loaded: Any, encoded: Sequence[Sequence[int]]) -> float:
    """Mean over all tokens but each sentence's first, under the model's BOS policy."""
    bos = loaded.encoder.bos_id
    losses: list[float] = []
    for ids in encoded:
        if len(ids) < 2:
            return math.nan
        given = list(ids) if bos is None else [bos, *ids]
        losses += token_losses(loaded.model, given, loaded.device)[len(given) - len(ids) :]
    return fmean(losses)


def _loss_check(mean: float, band: HealthBand) -> Check:
    low, high = band.min_mean_loss_nats, band.max_mean_loss_nats
    ok = math.isfinite(mean) and low <= mean <= high
    shown = f"{mean:.2f}" if math.isfinite(mean) else "no number"
    detail = f"mean loss on plain English is {shown} nats per token, band {low:g} to {high:g}"
    if not ok:
        detail += "; weights are damaged, untrained, or do not belong to this tokenizer"
    values = {"mean_loss_nats": round(mean, 4) if math.isfinite(mean) else None, "max_nats": high}
    return Check("health: loss", ok, detail, values)


def _ratio_check(ratio: float, band: HealthBand) -> Check:
    ok = 0.9 <= ratio <= band.max_tokens_per_word_ratio
    detail = f"{ratio:.2f} tokens per English word, band 0.9 to {band.max_tokens_per_word_ratio:g}" + (
        "" if ok else "; the tokenizer is broken: it does not know whole words"
    )
    values = {"tokens_per_word_ratio": round(ratio, 4), "max_ratio": band.max_tokens_per_word_ratio}
    return Check("health: tokens per word", ok, detail, values)


def _round_trip_check(raw: RawTokenizer) -> Check:
    for text in ROUND_TRIPS:
        back = raw.decode(raw.encode(text))
        # SentencePiece tokenizers with a dummy prefix drop or add one leading space; nothing else may go.
        if back != text and back.lstrip(" ") != text:
            kind = "spaces" if folded(back) == folded(text) else "text"
            detail = f"decode(encode(x)) changes {kind}: {text[:50]!r} comes back as {back[:50]!r}"
            return Check("health: round trip", False, detail, {"text": text, "back": back})
    detail = f"decode(encode(x)) = x for {len(ROUND_TRIPS)} texts with spaces, accents and numbers"
    return Check("health: round trip", True, detail, {"texts": len(ROUND_TRIPS)})
