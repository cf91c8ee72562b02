"""A scripted engine: deterministic completions and scores without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from core.engines.base import (
    Completion,
    CompletionRequest,
    Continuation,
    FloatArray,
    Progress,
)


class CharEncoder:
    """One token per character; ids are code points."""

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def encode_continuation(self, text: str) -> tuple[int, ...]:
        # A label with its space is one token, as real tokenizers have it.
        if len(text) == 2 and text[0] == " ":
            return (ord(text[1]) + 0x10000,)
        return tuple(map(ord, text))

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i) for i in ids)


class FakeEngine:
    """Answers with `write(prompt text, seed)`; scores are a hash of what is scored unless scripted."""

    def __init__(
        self,
        write: Callable[[str, int], tuple[str, str]],
        next_scores: Callable[[str, Sequence[int]], Sequence[float]] | None = None,
        token_scores: Callable[[str, str], float] | None = None,
    ) -> None:
        self.write = write
        self.next_scores = next_scores
        self.token_scores = token_scores
        self.encoder = CharEncoder()
        self.calls = 0

    def complete(
        self, requests: Sequence[CompletionRequest], on_progress: Progress | None = None
    ) -> list[Completion]:
        self.calls += 1
        done = []
        for request in requests:
            text, reason = self.write(self.encoder.decode(request.prompt_ids), request.seed)
            done.append(
                Completion(
                    request.request_id,
                    text,
                    text,
                    tuple(map(ord, text)),
                    reason,
                    len(request.prompt_ids),
                    len(text),
                )
            )
        return done

    def score_next(self, prompts: Sequence[tuple[int, ...]], token_ids: Sequence[int]) -> FloatArray:
        rows = []
        for prompt in prompts:
            text = self.encoder.decode(prompt)
            scripted = self.next_scores(text, token_ids) if self.next_scores else None
            rows.append(scripted or [-_unit(text, t) for t in token_ids])
        return np.array(rows, dtype=np.float32)

    def score_continuations(self, items: Sequence[Continuation]) -> list[FloatArray]:
        scores = []
        for item in items:
            context = self.encoder.decode(item.context_ids)
            text = self.encoder.decode(item.continuation_ids)
            score = self.token_scores(context, text) if self.token_scores else -_unit(context, text)
            scores.append(np.full(len(text), score, dtype=np.float32))
        return scores


def _unit(*parts: object) -> float:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
