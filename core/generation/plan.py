"""What a generation run is asked to do, as values; and how its random numbers hang together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from core.engines.base import Sampling

Shot = tuple[str, str, str]
"""Few-shot pair: (id, instruction, response)."""

Screen = Callable[[list[tuple[str, str | None]]], list[str | None]]
"""Mechanical checks: (instruction, response or None) in, the reason to reject or None out."""


@dataclass(frozen=True)
class GenerationPlan:
    """Values of one run. Counts are items; see `core.config` for what each means."""

    seed: int
    instruction_sampling: Sampling
    instruction_max_new_tokens: int
    seeds_per_prompt: int
    accepted_per_prompt: int
    prompts_per_round: int
    samples_per_prompt: int
    items_per_completion: int
    min_words: int
    max_words: int
    response_sampling: Sampling
    response_max_new_tokens: int
    shots: tuple[Shot, ...]
    stops: tuple[str, ...]
    seed_items: tuple[tuple[str, str, str], ...]
    """Seed instructions for the lists: (id, type, instruction); few-shot pairs are not among them."""
    target_count: int
    max_candidates: int
    min_response_candidates: int
    min_new_unique_ratio: float
    give_up_rounds: int


def derive_seed(seed: int, *parts: object) -> int:
    """A 63-bit seed from the run's seed and a place in it; equal places give equal seeds everywhere."""
    text = ":".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
