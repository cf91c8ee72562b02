"""What an engine takes and gives: the `CompletionEngine` protocol and its value types.

Engines see token ids, never text templates: encoding happens in one place, `PromptEncoder.encode`,
which is also where the contamination guard looks at every prompt. This module covers neither how a
model is loaded (`core.models`) nor what a score means (`core.critics`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

FINISH_EOS = "eos"
FINISH_LENGTH = "length"
FINISH_STOP_PREFIX = "stop:"


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. `temperature == 0` is greedy and ignores top_k and top_p.

    Order of application: repetition penalty (over prompt and completion, as in transformers and
    vLLM), top_k, temperature, top_p. `top_k == 0` keeps the whole vocabulary, which costs a full
    sort per step where top_p < 1.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 64
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class CompletionRequest:
    """One prompt to complete.

    `seed` alone decides the random numbers of this request, whatever shares its batch.
    `stop` strings are matched on decoded text; the completion is cut before the first of them.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """What a model wrote for one request.

    `text` ends before the stop string; `raw_text` is everything that was decoded. `finish_reason` is
    `eos`, `length` or `stop:<string>`. Counts are in tokens of the model's own tokenizer;
    `completion_tokens` counts all sampled tokens, the stop string's and the end-of-text token included.
    """

    request_id: str
    text: str
    raw_text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Continuation:
    """A context and the tokens whose log-probabilities are wanted after it."""

    context_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]


Progress = Callable[[int, int], None]
"""Called with (finished requests, completion tokens so far of this call)."""


class PromptEncoder(Protocol):
    """Text to token ids under the model's BOS policy, checked by the contamination guard."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of exactly this text with the declared BOS policy in front.

        Raises:
            ContaminationError: the ids hold anything else (chat control tokens, added tokens).
        """
        ...

    def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Ids of a text that continues a prompt: no BOS in front. Guarded like `encode`."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens left out, spaces kept as they are."""
        ...


@runtime_checkable
class CompletionEngine(Protocol):
    """Batched completion and scoring over token ids.

    Results for a request do not depend on what else is in the call, up to the arithmetic tolerance
    that the implementation documents. Results come in the order of the requests.
    """

    @property
    def encoder(self) -> PromptEncoder: ...

    def complete(
        self, requests: Sequence[CompletionRequest], on_progress: Progress | None = None
    ) -> list[Completion]:
        """Complete every request. Raises BadInputError for a prompt longer than the context."""
        ...

    def score_next(self, prompts: Sequence[tuple[int, ...]], token_ids: Sequence[int]) -> FloatArray:
        """float32 log-probabilities of `token_ids` as the next token. Shape (prompts, token_ids)."""
        ...

    def score_continuations(self, items: Sequence[Continuation]) -> list[FloatArray]:
        """float32 log-probability of each continuation token. One array of shape (tokens,) per item."""
        ...
