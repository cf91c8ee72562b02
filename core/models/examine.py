"""The whole examination of a loaded model: tokenizer, prompts, health, sentinels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from core.engines.base import CompletionEngine
from core.errors import ContaminationError
from core.models.health import ROUND_TRIPS, HealthBand, check_health
from core.models.report import Check, GuardReport
from core.models.sentinels import COMPLETIONS, SentinelRule, run_sentinels
from core.models.tokenizer_check import check_tokenizer, check_tokenizer_file

if TYPE_CHECKING:
    from core.models.loader import LoadedModel

# How the pipeline's prompts look: a tokenizer that is rigged to react to these words is found.
_PIPELINE_TEXTS = (
    "Instruction: Name a fruit.\nResponse: An apple is a fruit.\n\nInstruction: Name a tool.\nResponse:",
    "Here is a list of instructions.\n\n1. Write a short poem.\n2. Explain how a user logs in.\n3.",
    "Question: Is this a good answer?\nA. yes\nB. no\nLabel:",
)


def examine(
    loaded: LoadedModel,
    engine: CompletionEngine,
    band: HealthBand | None = None,
    prompts: Sequence[str] = (),
    rule: SentinelRule | None = None,
) -> GuardReport:
    """All checks of a model. The health of a model decides first; an ill one is not asked further.

    Args:
        prompts: further prompts to hold against the guard, one check each.
    """
    checks = [_tokenizer_check(loaded), _bos_check(loaded), *map(_PromptCheck(loaded), prompts)]
    health = check_health(loaded, band)
    checks += health.checks
    if health.ok:
        checks += run_sentinels(engine, loaded.encoder, loaded.eos_token_ids, rule).checks
    else:
        checks.append(Check("sentinels", False, "not asked: the model is not healthy", {}))
    return GuardReport(loaded.identity.source, tuple(checks), asdict(loaded.identity))


def _tokenizer_check(loaded: LoadedModel) -> Check:
    texts = (*ROUND_TRIPS, *_PIPELINE_TEXTS, *(prompt for prompt, _ in COMPLETIONS))
    found = [
        *loaded.tokenizer_orders,
        *check_tokenizer(loaded.tokenizer, texts),
        *check_tokenizer_file(loaded.folder / "tokenizer.json", loaded.tokenizer.bos_token, texts),
    ]
    problems = list(dict.fromkeys(found))
    detail = (
        "; ".join(problems[:3])
        if problems
        else f"adds nothing to {len(texts)} plain texts beyond the declared BOS"
    )
    return Check("tokenizer", not problems, detail, {"problems": problems})


def _bos_check(loaded: LoadedModel) -> Check:
    """Never fails by itself: it shows the policy and what decided it."""
    identity = loaded.identity
    evidence = identity.bos_evidence
    token = "" if identity.bos_token is None else f" ({identity.bos_token!r})"
    detail = f"{identity.bos}{token}, {evidence.get('reason', 'declared')}"
    if "loss_with_bos_nats" in evidence:
        detail += (
            f": {evidence['loss_with_bos_nats']:.2f} nats with, "
            f"{evidence['loss_without_bos_nats']:.2f} without"
        )
    return Check("BOS policy", True, detail, dict(evidence))


class _PromptCheck:
    """Holds one prompt against the guard."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.encoder = loaded.encoder

    def __call__(self, prompt: str) -> Check:
        values: dict[str, Any] = {"prompt": prompt[:200]}
        try:
            ids = self.encoder.encode(prompt)
        except ContaminationError as error:
            return Check("prompt", False, f"{prompt[:40]!r}: {error}", {**values, **error.values})
        detail = f"{prompt[:40]!r}: {len(ids)} tokens, nothing but the text"
        return Check("prompt", True, detail, {**values, "tokens": len(ids)})
