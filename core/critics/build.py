"""Building the configured critics and choosing among them by certification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.critics.ab import LabelCritic
from core.critics.base import AcceptRule, Critic, CriticItem
from core.critics.certify import Certificate, certify, choose
from core.critics.corruption import LabelledItem, corrupt_half
from core.critics.likelihood import LikelihoodCritic, Shot
from core.engines.base import CompletionEngine


def build_critic(kind: str, engine: CompletionEngine, subject: str, shots: Sequence[Shot]) -> Critic:
    """The critic of a kind: `ab`, or the likelihood critic of the subject."""
    if kind == "ab":
        return LabelCritic(engine, subject)
    return LikelihoodCritic(engine, subject, shots)


@dataclass(frozen=True)
class CertificationPlan:
    """What to certify for one subject, as values of the config."""

    subject: str
    kinds: tuple[str, ...]
    margin_nats: float | None
    target_precision: float
    min_auroc: float
    min_label_mass_ratio: float
    seed: int


def certification_items(plan: CertificationPlan, exemplars: Sequence[CriticItem]) -> list[LabelledItem]:
    """Half of the exemplars as they are, half corrupted."""
    return corrupt_half(exemplars, plan.subject, plan.seed)


def certify_kinds(
    plan: CertificationPlan,
    engine: CompletionEngine,
    shots: Sequence[Shot],
    items: Sequence[LabelledItem],
    source: str,
) -> tuple[Certificate, list[Certificate]]:
    """The chosen certificate and those of all configured kinds, on the same items."""
    tried = [
        certify(
            build_critic(kind, engine, plan.subject, shots),
            items,
            source=source,
            margin_nats=plan.margin_nats,
            target_precision=plan.target_precision,
            min_auroc=plan.min_auroc,
            min_label_mass_ratio=plan.min_label_mass_ratio,
        )
        for kind in plan.kinds
    ]
    return choose(tried), tried


class CertifiedCritic:
    """A critic together with the rule that its certificate allows."""

    def __init__(self, critic: Critic, rule: AcceptRule) -> None:
        self.critic = critic
        self.rule = rule
