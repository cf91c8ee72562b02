"""The A/B critic: the log-probabilities of two label tokens, both ways round, minus a prior.

    score = mean over both assignments of
            [ lse(label that means good) - lse(label that means bad) ]  of the item
          - [ the same ]                                                of a content-free item

`lse` is log-sum-exp over the token variants of a label (`A`, ` A`). Subtracting a content-free item
removes the model's liking for a letter: contextual calibration, Zhao et al. 2021. The label is scored,
never sampled.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
from scipy.special import logsumexp

from core.critics.base import SEAL, Critic, CriticItem, Critique
from core.engines.base import CompletionEngine, FloatArray
from core.errors import BadInputError
from core.prompts.registry import render_label_prompt, templates

ASSIGNMENTS = (("A", "B"), ("B", "A"))
CONTENT_FREE = CriticItem(instruction="N/A", response="N/A")


class LabelCritic(Critic):
    """`ab` critic over one rubric template.

    Args:
        engine: scores the labels.
        subject: `instruction` or `pair`; the rubric is `critic_<subject>`.
    """

    kind = "ab"

    def __init__(self, engine: CompletionEngine, subject: str) -> None:
        self.engine = engine
        self.subject = subject
        self.template = f"critic_{subject}"
        self.rubric_hash = templates()[self.template].hash
        self.variants = label_variants(engine)
        self._ids = [token for tokens in self.variants.values() for token in tokens]
        self._priors: list[float] | None = None

    def judge(self, items: Sequence[CriticItem]) -> list[Critique]:
        """One critique per item: score in nats, flip, label mass and both assignments' scores."""
        if not items:
            return []
        scored = [self._differences(items, good, bad) for good, bad in ASSIGNMENTS]
        if self._priors is None:
            self._priors = [
                float(self._differences([CONTENT_FREE], good, bad)[0][0]) for good, bad in ASSIGNMENTS
            ]
        calibrated = [diff - prior for (diff, _), prior in zip(scored, self._priors, strict=True)]
        masses = np.mean([mass for _, mass in scored], axis=0)
        return [
            self._critique(float(first), float(second), float(mass))
            for first, second, mass in zip(*calibrated, masses, strict=True)
        ]

    def _critique(self, first: float, second: float, mass: float) -> Critique:
        return Critique(
            kind=self.kind,
            rubric_hash=self.rubric_hash,
            score=(first + second) / 2,
            flip=(first > 0) != (second > 0),
            label_mass_ratio=mass,
            parts={"score_good_a": first, "score_good_b": second},
            seal=SEAL,
        )

    def _differences(self, items: Sequence[CriticItem], good: str, bad: str) -> tuple[FloatArray, FloatArray]:
        """Good minus bad in nats, and the share of label mass on the two; each of shape (items,)."""
        encode = self.engine.encoder.encode
        prompts = [
            encode(
                render_label_prompt(
                    self.template,
                    {"instruction": i.instruction, "response": i.response or ""},
                    good,
                    bad,
                )
            )
            for i in items
        ]
        scores = self.engine.score_next(prompts, self._ids)
        column = {token: position for position, token in enumerate(self._ids)}

        def label(name: str) -> FloatArray:
            columns = [column[token] for token in self.variants[name]]
            total: FloatArray = logsumexp(scores[:, columns], axis=1)
            return total

        known = logsumexp(scores, axis=1)
        mass = np.exp(np.logaddexp(label(good), label(bad)) - known)
        return label(good) - label(bad), mass


def label_variants(engine: CompletionEngine) -> dict[str, list[int]]:
    """Single-token ids of each capital letter, with and without a space in front.

    Raises:
        BadInputError: the tokenizer has no single token for A or for B.
    """
    variants: dict[str, list[int]] = {}
    for letter in string.ascii_uppercase:
        encoded = [engine.encoder.encode_continuation(text) for text in (letter, f" {letter}")]
        tokens = {ids[0] for ids in encoded if len(ids) == 1}
        if tokens:
            variants[letter] = sorted(tokens)
    missing = [letter for letter in ("A", "B") if letter not in variants]
    if missing:
        raise BadInputError(
            f"the tokenizer has no single token for the label {' and '.join(missing)}, so the ab critic "
            "cannot score it; use kinds: [pmi] in the config's critics section"
        )
    return variants
