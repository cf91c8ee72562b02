"""What critics judge and what they give back.

A `Critique` can only be made here in `core.critics`: its constructor asks for a seal that nothing
outside holds, so no other code can pass an opinion off as a critic's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

REASON_MARGIN = "critic_margin"
REASON_FLIP = "critic_flip"
REASON_FORMAT = "critic_format"


class _Seal:
    """Only one exists, and only `core.critics` hands it out."""


SEAL = _Seal()


@dataclass(frozen=True)
class CriticItem:
    """What is judged: an instruction alone (`response` None) or an instruction with its response."""

    instruction: str
    response: str | None = None


@dataclass(frozen=True)
class Critique:
    """One critic's opinion of one item.

    `score` is in nats, higher is better. `flip` says that the two label assignments disagree,
    `label_mass_ratio` is p(A)+p(B) over the mass of all labels the model knows; both are None for
    critics without labels.
    """

    kind: str
    rubric_hash: str
    score: float
    flip: bool | None = None
    label_mass_ratio: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    seal: _Seal | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.seal is not SEAL:
            raise TypeError("only a critic can build a Critique; call critic.judge(items)")

    def to_record(self) -> dict[str, Any]:
        """Plain values for a JSONL record."""
        record: dict[str, Any] = {
            "kind": self.kind,
            "rubric": self.rubric_hash,
            "score": round(self.score, 6),
        }
        if self.flip is not None:
            record["flip"] = self.flip
        if self.label_mass_ratio is not None:
            record["label_mass_ratio"] = round(self.label_mass_ratio, 6)
        return record | {name: round(value, 6) for name, value in self.parts.items()}


class Critic(Protocol):
    """Judges items of one sort. `subject` is `instruction` or `pair`."""

    kind: str
    subject: str
    rubric_hash: str

    def judge(self, items: Sequence[CriticItem]) -> list[Critique]:
        """One critique per item, in order."""
        ...


@dataclass(frozen=True)
class AcceptRule:
    """When a critique accepts: score at least `margin_nats`, assignments agreeing, labels understood.

    `decides` is false for a critic that failed certification: it is reported and never filters.
    """

    margin_nats: float
    min_label_mass_ratio: float
    decides: bool

    def rejection(self, critique: Critique) -> str | None:
        """Why the item is rejected, or None. Never a reason where the critic may not decide."""
        if not self.decides:
            return None
        mass = critique.label_mass_ratio
        if mass is not None and mass < self.min_label_mass_ratio:
            return REASON_FORMAT
        if critique.flip:
            return REASON_FLIP
        return None if critique.score >= self.margin_nats else REASON_MARGIN
