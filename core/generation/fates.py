"""What becomes of a candidate: accepted, or rejected for one named reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from core.critics.base import CriticItem
from core.critics.build import CertifiedCritic
from core.engines.base import PromptEncoder
from core.errors import ContaminationError

ACCEPTED = "accepted"
REJECTED = "rejected"

Record = dict[str, Any]


def control_tokens(encoder: PromptEncoder, text: str) -> str | None:
    """`control_tokens` for a text that the guard would refuse in a prompt: a model may write one."""
    try:
        encoder.encode_continuation(text)
    except ContaminationError:
        return "control_tokens"
    return None


def sieve(records: Sequence[Record], reason_of: Callable[[Record], str | None]) -> list[Record]:
    """Reject every record that has a reason; those that are left, in order."""
    left = []
    for record in records:
        if reason := reason_of(record):
            record |= {"fate": REJECTED, "reason": reason}
        else:
            left.append(record)
    return left


def let_critic_decide(
    records: Sequence[Record], critic: CertifiedCritic, item_of: Callable[[Record], CriticItem]
) -> None:
    """Write critique, fate and reason into records that nothing else objected to."""
    critiques = critic.critic.judge([item_of(record) for record in records])
    for record, critique in zip(records, critiques, strict=True):
        reason = critic.rule.rejection(critique)
        record |= {
            "critique": critique.to_record(),
            "fate": REJECTED if reason else ACCEPTED,
            "reason": reason,
        }
