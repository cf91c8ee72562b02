"""One batch of responses to accepted instructions, and each pair's fate."""

from __future__ import annotations

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
from core.prompts.cleaning import RESPONSE_RULES, clean
from core.prompts.registry import RenderedPrompt, render_response


def write_responses(
    engine: CompletionEngine,
    plan: GenerationPlan,
    instructions: Sequence[Record],
    critic: CertifiedCritic,
    screen: Screen,
    on_progress: Progress | None = None,
) -> tuple[list[Record], list[Completion]]:
    """Records of one response per instruction record, each with its fate, and the completions."""
    prompts = [render_response(record["instruction"], plan.shots) for record in instructions]
    requests = [
        CompletionRequest(
            f"{record['id']}-r",
            engine.encoder.encode(prompt.text),
            plan.response_max_new_tokens,
            plan.response_sampling,
            plan.stops,
            derive_seed(plan.seed, "responses", record["id"]),
        )
        for record, prompt in zip(instructions, prompts, strict=True)
    ]
    completions = engine.complete(requests, on_progress)
    records = [_record(*parts) for parts in zip(instructions, completions, requests, prompts, strict=True)]
    _decide(records, engine.encoder, critic, screen)
    return records, completions


def _record(
    instruction: Record,
    completion: Completion,
    request: CompletionRequest,
    prompt: RenderedPrompt,
) -> Record:
    cleaned = clean(completion.text, RESPONSE_RULES)
    return {
        "kind": "pair",
        "id": completion.request_id,
        "instruction_id": instruction["id"],
        "instruction": instruction["instruction"],
        "response": cleaned.text,
        "raw": completion.raw_text,
        "cleaning": list(cleaned.rules),
        "finish_reason": completion.finish_reason,
        "prompt_tokens": completion.prompt_tokens,
        "response_tokens": completion.completion_tokens,
        "seed": request.seed,
        "template": prompt.template_hash,
        "draw": list(prompt.draw),
        "prompt_ids_sha256": sha256_json(request.prompt_ids),
    }


def _decide(records: list[Record], encoder: PromptEncoder, critic: CertifiedCritic, screen: Screen) -> None:
    """Write `fate` and `reason`: cut or empty, mechanical faults, then the critic."""
    objections = screen([(record["instruction"], record["response"]) for record in records])
    screened = {record["id"]: reason for record, reason in zip(records, objections, strict=True)}

    def fault_of(record: Record) -> str | None:
        objection = _form(record) or screened[record["id"]]
        return objection or control_tokens(encoder, record["response"])

    sound = sieve(records, fault_of)
    let_critic_decide(sound, critic, lambda record: CriticItem(record["instruction"], record["response"]))


def _form(record: Record) -> str | None:
    if not record["response"]:
        return "empty"
    return "cut_by_token_limit" if record["finish_reason"] == FINISH_LENGTH else None
