"""One batch of instruction candidates: list prompts, completions, parsing, and each item's fate."""

from __future__ import annotations

import random
from collections.abc import Sequence

from core.critics.base import CriticItem
from core.critics.build import CertifiedCritic
from core.engines.base import (
    FINISH_LENGTH,
    Completion,
    CompletionEngine,
    CompletionRequest,
    Progress,
    PromptEncoder,
)
from core.files import sha256_json
from core.generation.fates import Record, control_tokens, let_critic_decide, sieve
from core.generation.plan import GenerationPlan, Screen, derive_seed
from core.generation.pool import DedupPool
from core.prompts.cleaning import INSTRUCTION_RULES, clean
from core.prompts.missing import misses_its_input
from core.prompts.parsing import ListItem, parse_numbered_list
from core.prompts.registry import RenderedPrompt, render_instruction_list


def draw_prompts(
    plan: GenerationPlan, round_number: int, accepted: Sequence[tuple[str, str]]
) -> list[tuple[RenderedPrompt, int]]:
    """The round's list prompts and the number that each ends on.

    Each shows seeds of all types and, once there are any, instructions accepted in earlier rounds.
    """
    prompts = []
    for index in range(plan.prompts_per_round):
        rng = random.Random(derive_seed(plan.seed, "list", round_number, index))
        own = rng.sample(list(accepted), min(plan.accepted_per_prompt, len(accepted)))
        shown = _draw_seeds(plan, plan.seeds_per_prompt - len(own), rng) + own
        rng.shuffle(shown)
        prompts.append(render_instruction_list(shown))
    return prompts


def _draw_seeds(plan: GenerationPlan, count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Seeds spread over the types as evenly as `count` allows."""
    by_type: dict[str, list[tuple[str, str]]] = {}
    for seed_id, kind, text in plan.seed_items:
        by_type.setdefault(kind, []).append((seed_id, text))
    kinds = sorted(by_type)
    rng.shuffle(kinds)
    for kind in kinds:
        rng.shuffle(by_type[kind])
    rounds = (by_type[kinds[i % len(kinds)]] for i in range(count))
    return [pool.pop() for pool in rounds if pool]


def write_instructions(
    engine: CompletionEngine,
    plan: GenerationPlan,
    round_number: int,
    accepted: Sequence[tuple[str, str]],
    pool: DedupPool,
    critic: CertifiedCritic,
    screen: Screen,
    on_progress: Progress | None = None,
) -> tuple[list[Record], list[Completion]]:
    """Records of all candidates of a round, each with its fate, and the completions behind them.

    Adds every new unique candidate to `pool`, judged good or not: it needs no second judging.
    """
    prompts = draw_prompts(plan, round_number, accepted)
    requests, sources = [], []
    for p, (prompt, number) in enumerate(prompts):
        ids = engine.encoder.encode(prompt.text)
        for s in range(plan.samples_per_prompt):
            request_id = f"r{round_number:03d}-p{p:02d}-s{s:02d}"
            requests.append(
                CompletionRequest(
                    request_id,
                    ids,
                    plan.instruction_max_new_tokens,
                    plan.instruction_sampling,
                    (f"\n{number + plan.items_per_completion}.",),
                    derive_seed(plan.seed, "instructions", request_id),
                )
            )
            sources.append((prompt, number, sha256_json(ids)))
    completions = engine.complete(requests, on_progress)
    records = []
    for completion, request, (prompt, number, ids_hash) in zip(completions, requests, sources, strict=True):
        cut = completion.finish_reason == FINISH_LENGTH
        parsed = parse_numbered_list(completion.text, number, cut=cut)
        records += [_record(item, completion, request, prompt, ids_hash) for item in parsed.items]
    _decide(records, engine.encoder, plan, pool, critic, screen)
    return records, completions


def _record(
    item: ListItem,
    completion: Completion,
    request: CompletionRequest,
    prompt: RenderedPrompt,
    ids_hash: str,
) -> Record:
    cleaned = clean(item.text, INSTRUCTION_RULES)
    return {
        "kind": "instruction",
        "id": f"{completion.request_id}-n{item.number:02d}",
        "instruction": cleaned.text,
        "raw": item.text,
        "cleaning": list(cleaned.rules),
        "complete": item.complete,
        "finish_reason": completion.finish_reason,
        "seed": request.seed,
        "template": prompt.template_hash,
        "draw": list(prompt.draw),
        "prompt_ids_sha256": ids_hash,
    }


def _decide(
    records: list[Record],
    encoder: PromptEncoder,
    plan: GenerationPlan,
    pool: DedupPool,
    critic: CertifiedCritic,
    screen: Screen,
) -> None:
    """Write `fate` and `reason` into the records: form, screen, duplicates, then the critic."""
    objections = screen([(record["instruction"], None) for record in records])
    screened = {record["id"]: reason for record, reason in zip(records, objections, strict=True)}

    def twin_of(record: Record) -> str | None:
        twin = pool.add(record["id"], record["instruction"])
        if twin is None:
            return None
        record |= {"neighbour": twin.neighbour_id, "similarity": round(twin.similarity, 4)}
        return twin.reason

    def fault_of(record: Record) -> str | None:
        objection = _form(record, plan) or screened[record["id"]]
        return objection or control_tokens(encoder, record["instruction"])

    formed = sieve(records, fault_of)
    unique = sieve(formed, twin_of)
    let_critic_decide(unique, critic, lambda record: CriticItem(record["instruction"]))


def _form(record: Record, plan: GenerationPlan) -> str | None:
    text = str(record["instruction"])
    words = len(text.split())
    if not record["complete"]:
        return "cut_by_token_limit"
    if "\n" in text:
        return "not_one_line"
    if words < plan.min_words:
        return "too_few_words"
    if words > plan.max_words:
        return "too_many_words"
    return "input_missing" if misses_its_input(text) else None
