"""Loading and examining the base model, and certifying critics on it."""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

from prefect import task

from core.config import (
    EngineSection,
    InstructionCriticSection,
    ModelSection,
    PairCriticSection,
)
from core.critics.base import CriticItem
from core.critics.build import CertificationPlan, certification_items, certify_kinds
from core.critics.certify import load_labelled
from core.generation.plan import Shot, derive_seed
from core.progress import ProgressEvent, emit
from core.prompts.seeds import Seed, load_seeds
from tasks.policies import RETRIES, RETRY_DELAYS_S, cached_on, is_transient
from tasks.resources import engine_for


@task(
    name="load-model",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=is_transient,
)
def load_identity(model: ModelSection, engine: EngineSection) -> dict[str, Any]:
    """Identity of the loaded model: hashes of weights and tokenizer, BOS policy, quantisation found."""
    emit(ProgressEvent("model", f"loading {model.source}"))
    return asdict(engine_for(model, engine).loaded.identity)


@task(name="examine-model", persist_result=True, cache_policy=cached_on("models", "engines"))
def examine_model(model: ModelSection, engine: EngineSection, identity: dict[str, Any]) -> dict[str, Any]:
    """The guard's report: health, tokenizer, sentinels. `identity` makes the cache key honest."""
    from core.models.examine import examine
    from core.models.health import HealthBand
    from core.models.sentinels import SentinelRule

    emit(ProgressEvent("model", "examining: tokenizer, health, sentinel probes"))
    ready = engine_for(model, engine)
    band = HealthBand(
        min_mean_loss_nats=model.health.min_mean_loss_nats,
        max_mean_loss_nats=model.health.max_mean_loss_nats,
        max_tokens_per_word_ratio=model.health.max_tokens_per_word_ratio,
    )
    report = examine(
        ready.loaded,
        ready,
        band=band,
        rule=SentinelRule(
            min_completion_pass_ratio=model.sentinels.min_completion_pass_ratio,
            max_turn_end_probability=model.sentinels.max_turn_end_probability,
            max_text_end_probability=model.sentinels.max_text_end_probability,
        ),
    )
    record: dict[str, Any] = report.to_record()
    return record


def draw_shots(seed: int, count: int) -> tuple[Shot, ...]:
    """The run's few-shot pairs: one seed item of each type in turn, the same in every prompt."""
    rng = random.Random(derive_seed(seed, "shots"))
    by_type: dict[str, list[Seed]] = {}
    for item in load_seeds():
        by_type.setdefault(item.type, []).append(item)
    kinds = sorted(by_type)
    rng.shuffle(kinds)
    drawn = [rng.choice(by_type[kinds[i % len(kinds)]]) for i in range(count)]
    unique = list({item.id: item for item in drawn}.values())
    return tuple((item.id, item.instruction, item.response) for item in unique)


@task(
    name="certify-critics",
    persist_result=True,
    cache_policy=cached_on("critics", "engines", "models", "prompts"),
)
def certify_critic(
    subject: str,
    critic: InstructionCriticSection | PairCriticSection,
    model: ModelSection,
    engine: EngineSection,
    identity: dict[str, Any],
    seed: int,
    few_shot_pairs: int,
    labelled_sha256: str | None,
) -> dict[str, Any]:
    """Certificates of all configured kinds for `instruction` or `pair`, and which one was chosen."""
    emit(ProgressEvent("critics", f"certifying the {subject} critic: {', '.join(critic.kinds)}"))
    plan = CertificationPlan(
        subject=subject,
        kinds=critic.kinds,
        margin_nats=None if critic.margin_nats == "fit" else float(critic.margin_nats),
        target_precision=critic.target_precision_ratio,
        min_auroc=critic.min_auroc,
        min_label_mass_ratio=critic.min_label_mass_ratio,
        seed=derive_seed(seed, "certification", subject),
    )
    shots = draw_shots(seed, few_shot_pairs)
    if critic.labelled_file is not None:
        items, source = load_labelled(critic.labelled_file, subject), str(critic.labelled_file)
    else:
        exemplars = _exemplars(subject, shots, critic.certification_items, plan.seed)
        items, source = certification_items(plan, exemplars), "corruptions"
    chosen, tried = certify_kinds(plan, engine_for(model, engine), shots, items, source)
    return {"chosen": chosen.to_record(), "tried": [c.to_record() for c in tried]}


def _exemplars(subject: str, shots: tuple[Shot, ...], count: int, seed: int) -> list[CriticItem]:
    """Hand-written items that no prompt of the run shows."""
    shown = {shot_id for shot_id, _, _ in shots}
    free = [item for item in load_seeds() if item.id not in shown]
    drawn = random.Random(seed).sample(free, min(count, len(free)))
    pair = subject == "pair"
    return [CriticItem(item.instruction, item.response if pair else None) for item in drawn]
