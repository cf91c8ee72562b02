"""Choosing the next token of many requests at once, each with its own random numbers.

One uniform number per (request seed, step) picks from the cumulative distribution, so a request
draws the same numbers whatever shares its batch. Top-k is cut before top-p: sorting a 262,144-word
vocabulary costs several times a decode step on a CPU, sorting 64 candidates nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from core.engines.base import CompletionRequest, Sampling


def draw_uniforms(request: CompletionRequest) -> torch.Tensor:
    """float64 uniforms in [0, 1), one per step, from a counter-based generator keyed by the seed.

    Shape (max_new_tokens,). Philox: Salmon et al. 2011, as in NumPy.
    """
    generator = np.random.Generator(np.random.Philox(key=request.seed))
    return torch.from_numpy(generator.random(request.max_new_tokens))


def penalise_repetition(logits: torch.Tensor, history: torch.Tensor, penalties: torch.Tensor) -> torch.Tensor:
    """Logits (n, vocabulary) with every token of `history` (n, length) made less likely.

    Positive logits are divided, negative ones multiplied (CTRL, Keskar et al. 2019). `penalties` has
    shape (n,). Repeated ids in `history` count once.
    """
    seen = logits.gather(1, history)
    factor = penalties[:, None]
    return logits.scatter(1, history, torch.where(seen > 0, seen / factor, seen * factor))


class RowSampling:
    """The sampling settings of the live rows as tensors of shape (n,)."""

    def __init__(self, settings: Sequence[Sampling], device: torch.device) -> None:
        def column(values: Sequence[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        self.greedy = torch.tensor([s.temperature <= 0 for s in settings], device=device)
        self.all_greedy = all(s.temperature <= 0 for s in settings)
        self.temperature = column([s.temperature if s.temperature > 0 else 1.0 for s in settings])
        self.top_p = column([s.top_p for s in settings])
        self.penalty = column([s.repetition_penalty for s in settings])
        self.penalised = any(s.repetition_penalty != 1.0 for s in settings)
        self.top_k = torch.tensor([s.top_k for s in settings], device=device)
        self.widest_k = 0 if any(s.top_k <= 0 for s in settings) else max(s.top_k for s in settings)


def choose_next(logits: torch.Tensor, uniforms: torch.Tensor, rows: RowSampling) -> torch.Tensor:
    """Token ids, shape (n,), from float32 logits (n, vocabulary) and one uniform per row (n,)."""
    if rows.all_greedy:
        return logits.argmax(dim=-1)
    width = rows.widest_k or logits.shape[-1]
    values, ids = logits.topk(min(width, logits.shape[-1]), dim=-1)
    rank = torch.arange(values.shape[-1], device=logits.device)[None, :]
    beyond_k = (rows.top_k[:, None] > 0) & (rank >= rows.top_k[:, None])
    values = (values / rows.temperature[:, None]).masked_fill(beyond_k, -torch.inf)
    probabilities = values.softmax(dim=-1, dtype=torch.float64)
    before = probabilities.cumsum(dim=-1) - probabilities
    probabilities = probabilities.masked_fill(before >= rows.top_p[:, None].double(), 0.0)
    cumulative = probabilities.cumsum(dim=-1)
    target = (uniforms[:, None] * cumulative[:, -1:]).to(cumulative)
    pick = torch.searchsorted(cumulative, target, right=True).clamp(max=values.shape[-1] - 1)
    sampled = ids.gather(1, pick)[:, 0]
    return torch.where(rows.greedy, ids[:, 0], sampled)
