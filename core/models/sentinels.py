"""Sentinel probes: is the loaded model a working *base* model?

    completions   simple sentences must be completed; scored by allowed answers
    turn ends     probability of a chat turn's control token right after a complete answer, in the
                  tokenizer's own chat format, in every published one that its vocabulary has, and bare
    text ends     probability of end-of-text right after a complete answer to a bare instruction
    end tokens    the declared end-of-text tokens are not chat turn tokens

Means over 12 questions, the worst format (float32 weights; Qwen in bfloat16):

                                     turn ends   text ends (bare)   completions
    Gemma 3 270M base                  5e-10         0.0013            9 / 10
    SmolLM2 135M Instruct               0.34         0.30              6 / 10
    Qwen2.5-Coder 1.5B Instruct         0.82         0.0003           10 / 10

Limits 0.05 and 0.20. A turn token's embedding is untrained in a base model, hence the gap. Answering,
under whatever wrapper, is not counted: modern base models do. Not caught: a tuned model whose turn
tokens were renamed and which, like the Qwen above, rarely ends after a bare question and answer. A base
model whose pre-training held much chat-formatted text may be refused; the report shows by which numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.engines.base import CompletionEngine, CompletionRequest
from core.models.chat_probes import (
    ChatProbe,
    bare_probes,
    format_probes,
    probe_ids,
    turn_token_ids,
)
from core.models.guard import GuardedEncoder
from core.models.report import Check

COMPLETION_TOKENS = 8
COMPLETIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Water freezes at", ("0", "zero", "32")),
    ("The capital of France is", ("paris",)),
    ("The opposite of hot is", ("cold",)),
    ("Two plus two equals", ("four", "4")),
    ("The sun rises in the", ("east", "morning")),
    ("Monday, Tuesday, Wednesday,", ("thursday",)),
    ("Once upon a", ("time",)),
    ("The first president of the United States was George", ("washington",)),
    ("One, two, three, four,", ("five",)),
    ("The color of the sky on a clear day is", ("blue",)),
)
QUESTIONS: tuple[tuple[str, str], ...] = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Name three primary colors.", "The three primary colors are red, yellow, and blue."),
    ("What do bees make?", "Bees make honey."),
    ("How many days are in a week?", "There are seven days in a week."),
    (
        "Explain why the sky looks blue.",
        "The sky looks blue because air scatters blue light more than red light.",
    ),
    ("What is the opposite of hot?", "The opposite of hot is cold."),
    (
        "Give me a tip for sleeping better.",
        "Go to bed at the same time every night and keep your room dark.",
    ),
    (
        "Write one sentence about the sea.",
        "The sea was calm and silver under the morning sun.",
    ),
    (
        "Who wrote the play Romeo and Juliet?",
        "Romeo and Juliet was written by William Shakespeare.",
    ),
    (
        "List three animals that live in the sea.",
        "Three animals that live in the sea are whales, sharks, and dolphins.",
    ),
    ("Translate the word water into Spanish.", "The Spanish word for water is agua."),
    (
        "What do you need to make a sandwich?",
        "To make a sandwich, you need bread, cheese, and a tomato.",
    ),
)


@dataclass(frozen=True)
class SentinelRule:
    """Thresholds: share of completions that must be right; mean probabilities that are too high."""

    min_completion_pass_ratio: float = 0.6
    max_turn_end_probability: float = 0.05
    max_text_end_probability: float = 0.20


@dataclass(frozen=True)
class SentinelReport:
    """The checks that the probes made."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether the model completes text and shows base-model behaviour."""
        return all(check.ok for check in self.checks)


def run_sentinels(
    engine: CompletionEngine,
    encoder: GuardedEncoder,
    eos_token_ids: Sequence[int],
    rule: SentinelRule | None = None,
) -> SentinelReport:
    """Run all probes through the engine; about 150 short sequences.

    Args:
        encoder: the model's encoder; it knows the tokenizer's control tokens and chat format.
        eos_token_ids: what the model declares as its end of text.
    """
    rule = rule or SentinelRule()
    turns = turn_token_ids(encoder)
    return SentinelReport(
        (
            _completions(engine, rule.min_completion_pass_ratio),
            _declared_ends(encoder, eos_token_ids, turns),
            _turn_ends(engine, encoder, turns, rule.max_turn_end_probability),
            _text_ends(engine, encoder, eos_token_ids, rule.max_text_end_probability),
        )
    )


def _completions(engine: CompletionEngine, least: float) -> Check:
    requests = [
        CompletionRequest(f"sentinel-{i}", engine.encoder.encode(prompt), COMPLETION_TOKENS)
        for i, (prompt, _) in enumerate(COMPLETIONS)
    ]
    written = [completion.text for completion in engine.complete(requests)]
    right = [_allowed(text, c[1]) for text, c in zip(written, COMPLETIONS, strict=True)]
    share = sum(right) / len(right)
    examples = [f"{c[0]!r} -> {t!r}" for t, c, r in zip(written, COMPLETIONS, right, strict=True) if not r]
    detail = f"{sum(right)} of {len(right)} simple completions right, at least {least:.0%} wanted"
    if examples:
        detail += f"; wrong: {'; '.join(examples[:2])}"
    values = {
        "right": sum(right),
        "of": len(right),
        "completions": {c[0]: t for t, c in zip(written, COMPLETIONS, strict=True)},
    }
    return Check("sentinel: completions", share >= least, detail, values)


def _allowed(text: str, answers: Sequence[str]) -> bool:
    return any(re.search(rf"\b{re.escape(a)}\b", text.lower()) for a in answers)


def _declared_ends(encoder: GuardedEncoder, ends: Sequence[int], turns: Sequence[int]) -> Check:
    names = {i: str(encoder.tokenizer.convert_ids_to_tokens(i)) for i in ends}
    chat = [name for i, name in names.items() if i in set(turns)]
    listed = ", ".join(f"{name!r} ({i})" for i, name in names.items())
    detail = f"declared end of text: {listed}"
    if chat:
        detail += f"; {chat[0]!r} ends a chat turn, as instruct models declare it"
    return Check("sentinel: end tokens", not chat, detail, {"end_tokens": list(names.values())})


def _turn_ends(
    engine: CompletionEngine, encoder: GuardedEncoder, turns: Sequence[int], limit: float
) -> Check:
    name = "sentinel: turn ends"
    if not turns:
        return Check(name, True, "the vocabulary has no chat turn tokens", {})
    probes = (*format_probes(encoder), *bare_probes())
    means = _end_probabilities(engine, encoder, probes, turns)
    worst = max(means, key=lambda key: means[key])
    ok = means[worst] <= limit
    detail = (
        f"after a complete answer a chat turn token follows with probability {means[worst]:.2g} "
        f"({worst}), limit {limit:g}" + ("" if ok else "; the model was tuned on chats")
    )
    return Check(name, ok, detail, {"mean_probability": means, "limit": limit})


def _text_ends(engine: CompletionEngine, encoder: GuardedEncoder, ends: Sequence[int], limit: float) -> Check:
    means = _end_probabilities(engine, encoder, bare_probes(), ends)
    mean = float(np.mean(list(means.values())))
    ok = mean <= limit
    detail = (
        f"after a complete answer to a bare instruction the text ends with probability {mean:.2g}, "
        f"limit {limit:g}" + ("" if ok else "; the model was tuned to answer and stop")
    )
    return Check("sentinel: text ends", ok, detail, {"mean_probability": means, "limit": limit})


def _end_probabilities(
    engine: CompletionEngine,
    encoder: GuardedEncoder,
    probes: Sequence[ChatProbe],
    tokens: Sequence[int],
) -> dict[str, float]:
    """Mean probability, over the questions, that one of `tokens` follows the answer; by probe."""
    prompts = [probe_ids(encoder, probe, q, a) for probe in probes for q, a in QUESTIONS]
    scores = np.exp(engine.score_next(prompts, list(tokens)).astype(np.float64)).sum(axis=1)
    by_probe = scores.reshape(len(probes), len(QUESTIONS)).mean(axis=1)
    return {probe.name: float(f"{mean:.3g}") for probe, mean in zip(probes, by_probe, strict=True)}
