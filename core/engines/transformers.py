"""The transformers engine: wide batches on CPU or CUDA, rows that leave when they finish.

    complete             continuous batching over `batch_size` rows: requests sorted by length join
                         as others finish; one preallocated KV cache; prompts' shared start computed once
    score_next           log-probabilities of a few tokens after each prompt
    score_continuations  log-probability of every token of a continuation

Scores are computed in float32 whatever the weights are in: bf16 logits come in steps of 0.125 nat.
Independence of the batch: other rows change only the order of floating-point sums. On float32 weights
log-probabilities agree within 1e-3 nat and greedy output is equal (tests/model/test_engine.py); on
bf16 a near-tie may fall either way, which is why a batch is written and recomputed whole.
Not covered: multi-GPU inference and paged attention; that is vLLM's work.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from core.engines.base import (
    FINISH_EOS,
    FINISH_LENGTH,
    FINISH_STOP_PREFIX,
    Completion,
    CompletionRequest,
    Continuation,
    FloatArray,
    Progress,
    PromptEncoder,
)
from core.engines.kv import RowCache
from core.engines.prefix import shared_prefix
from core.engines.sampling import RowSampling, choose_next, draw_uniforms, penalise_repetition
from core.engines.stops import StopMatcher, first_stop
from core.errors import BadInputError, ModelLoadError

KEPT_PREFIXES = 4
HEAD_POSITIONS = 64
VOCABULARY_CHUNK = 32_768
COLUMN_SLACK = 64


class _Row:
    """A request being decoded: its ids so far, its random numbers, its stop matcher."""

    def __init__(self, index: int, request: CompletionRequest, matcher: StopMatcher) -> None:
        self.index = index
        self.request = request
        self.matcher = matcher
        self.ids: list[int] = []
        self.uniforms = draw_uniforms(request)

    def finish_reason(self, eos_ids: frozenset[int]) -> str | None:
        if self.ids[-1] in eos_ids:
            return FINISH_EOS
        if self.matcher.completed(self.ids):
            return FINISH_STOP_PREFIX
        return FINISH_LENGTH if len(self.ids) >= self.request.max_new_tokens else None


class TransformersEngine:
    """`CompletionEngine` over a model from `core.models.load_model`.

    Args:
        loaded: model, encoder, eos_token_ids, max_context_tokens and device (a `LoadedModel`).
        batch_size: rows decoded together.
        prefill_tokens: most tokens of one prefill or scoring pass; bounds peak memory.
    """

    def __init__(self, loaded: Any, batch_size: int = 64, prefill_tokens: int = 4096) -> None:
        self.loaded = loaded
        self.model = loaded.model
        self.device = torch.device(loaded.device)
        self.batch_size = batch_size
        self.prefill_tokens = prefill_tokens
        self._eos = frozenset(loaded.eos_token_ids)
        self._layers = int(self.model.config.get_text_config().num_hidden_layers)
        self._prefixes: OrderedDict[tuple[int, ...], RowCache] = OrderedDict()
        self._check_head()

    @property
    def encoder(self) -> PromptEncoder:
        encoder: PromptEncoder = self.loaded.encoder
        return encoder

    # -- completion ---------------------------------------------------------------------------

    @torch.inference_mode()
    def complete(
        self, requests: Sequence[CompletionRequest], on_progress: Progress | None = None
    ) -> list[Completion]:
        """Completions in the order of the requests. See `CompletionEngine.complete`."""
        if not requests:
            return []
        self._check_lengths([(len(r.prompt_ids), r.max_new_tokens) for r in requests])
        batch = _DecodingBatch(self, requests)
        done: list[Completion | None] = [None] * len(requests)
        tokens = finished = 0
        while batch.rows or batch.queue:
            batch.refill()
            for row, reason in batch.step():
                done[row.index] = self._completion(row, reason)
                tokens += len(row.ids)
                finished += 1
                if on_progress:
                    on_progress(finished, tokens)
        return [completion for completion in done if completion is not None]

    def _completion(self, row: _Row, reason: str) -> Completion:
        request = row.request
        shown = row.ids[:-1] if reason == FINISH_EOS else row.ids
        raw = self.encoder.decode(shown)
        stop = first_stop(raw, request.stop)
        if stop is not None:
            reason = FINISH_STOP_PREFIX + stop[1]
        elif reason == FINISH_STOP_PREFIX:
            raise BadInputError(
                f"request {request.request_id}: a stop string matched the newest tokens but not the "
                f"whole text {raw!r}; the tokenizer decodes the same tokens differently"
            )
        return Completion(
            request_id=request.request_id,
            text=raw if stop is None else raw[: stop[0]],
            raw_text=raw,
            token_ids=tuple(row.ids),
            finish_reason=reason,
            prompt_tokens=len(request.prompt_ids),
            completion_tokens=len(row.ids),
        )

    def _check_lengths(self, lengths: Sequence[tuple[int, int]]) -> None:
        limit = self.loaded.max_context_tokens
        for position, (prompt, new) in enumerate(lengths):
            if prompt == 0:
                raise BadInputError(f"request {position} has an empty prompt; give it one token or more")
            if prompt + new > limit:
                raise BadInputError(
                    f"request {position} needs {prompt} prompt + {new} new tokens but the model's "
                    f"context holds {limit}; shorten the prompt or lower max_new_tokens"
                )

    # -- prefill ------------------------------------------------------------------------------

    def prefix_cache(self, prefix: tuple[int, ...]) -> RowCache:
        """One-row cache of a shared prompt start, computed once and kept for the next calls."""
        if prefix in self._prefixes:
            self._prefixes.move_to_end(prefix)
            return self._prefixes[prefix]
        cache = RowCache(self._layers, rows=1, columns=len(prefix))
        cache.set_extent(1, 0)
        self._hidden(torch.tensor([prefix]), cache)
        cache.set_extent(1, len(prefix))
        self._prefixes[prefix] = cache
        while len(self._prefixes) > KEPT_PREFIXES:
            self._prefixes.popitem(last=False)
        return cache

    def forward_suffixes(
        self, prefix: tuple[int, ...], sequences: Sequence[Sequence[int]]
    ) -> Iterator[tuple[list[int], torch.Tensor, RowCache]]:
        """Run `sequences`, all starting with `prefix`, through the model in padded sub-batches.

        Yields (indices into `sequences`, hidden states (rows, suffix length, width), the cache with
        prefix and suffix left-aligned). Padding is on the right, where causal attention cannot see it.
        """
        if not sequences:
            return
        own = [sequence[len(prefix) :] for sequence in sequences]
        order = sorted(range(len(own)), key=lambda i: (-len(own[i]), i))
        groups = list(_groups(order, own, self.prefill_tokens, self.batch_size))
        rows, longest = max(map(len, groups)), len(own[order[0]])
        cache = RowCache(self._layers, rows=rows, columns=len(prefix) + longest)
        if prefix:
            cache.fill_prefix(self.prefix_cache(prefix), rows)
        for group in groups:
            width = len(own[group[0]])
            ids = torch.tensor([[*own[i], *[own[i][-1]] * (width - len(own[i]))] for i in group])
            cache.set_extent(len(group), len(prefix))
            yield group, self._hidden(ids, cache), cache

    def _hidden(self, ids: torch.Tensor, cache: RowCache) -> torch.Tensor:
        ids = ids.to(self.device)
        positions = torch.arange(ids.shape[1], device=self.device)[None, :] + cache.t
        output = self.model.base_model(
            input_ids=ids,
            position_ids=positions.expand(ids.shape[0], -1),
            past_key_values=cache,
            use_cache=True,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    # -- scoring ------------------------------------------------------------------------------

    @torch.inference_mode()
    def score_next(self, prompts: Sequence[tuple[int, ...]], token_ids: Sequence[int]) -> FloatArray:
        """float32 log-probabilities, shape (prompts, token_ids). See `CompletionEngine.score_next`."""
        self._check_lengths([(len(p), 0) for p in prompts])
        wanted = torch.tensor(list(token_ids), device=self.device)
        scores = np.zeros((len(prompts), len(token_ids)), dtype=np.float32)
        prefix = shared_prefix(prompts)
        for group, hidden, _ in self.forward_suffixes(prefix, prompts):
            last = torch.tensor([len(prompts[i]) - len(prefix) - 1 for i in group], device=self.device)
            final = hidden[torch.arange(len(group), device=self.device), last]
            for begin in range(0, len(group), HEAD_POSITIONS):
                part = final[begin : begin + HEAD_POSITIONS]
                rows = group[begin : begin + HEAD_POSITIONS]
                scores[rows] = self._log_probabilities(part, wanted.expand(len(rows), -1))
        return scores

    @torch.inference_mode()
    def score_continuations(self, items: Sequence[Continuation]) -> list[FloatArray]:
        """Arrays of shape (tokens,), float32. See `CompletionEngine.score_continuations`."""
        sequences = [(*item.context_ids, *item.continuation_ids) for item in items]
        self._check_lengths([(len(item.context_ids), len(item.continuation_ids)) for item in items])
        prefix = shared_prefix([item.context_ids for item in items])
        results: list[FloatArray] = [np.zeros(0, dtype=np.float32)] * len(items)
        for group, hidden, _ in self.forward_suffixes(prefix, sequences):
            spans = [
                (row, len(items[i].context_ids) - len(prefix) - 1, len(items[i].continuation_ids))
                for row, i in enumerate(group)
            ]
            states = torch.cat([hidden[row, begin : begin + count] for row, begin, count in spans])
            targets = torch.cat([torch.tensor(items[i].continuation_ids) for i in group])
            targets = targets.to(self.device)[:, None]
            flat = [
                self._log_probabilities(states[i : i + HEAD_POSITIONS], targets[i : i + HEAD_POSITIONS])[:, 0]
                for i in range(0, len(targets), HEAD_POSITIONS)
            ]
            pieces = np.split(np.concatenate(flat), np.cumsum([count for *_, count in spans])[:-1])
            for i, piece in zip(group, pieces, strict=True):
                results[i] = piece
        return results

    def _log_probabilities(self, hidden: torch.Tensor, wanted: torch.Tensor) -> FloatArray:
        """float32 log-probabilities (positions, wanted) from hidden states (positions, width)."""
        logits = self._head(hidden)
        chosen = logits.gather(1, wanted.long()) - logits.logsumexp(dim=-1, keepdim=True)
        scores: FloatArray = chosen.cpu().numpy().astype(np.float32)
        return scores

    def _head(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 logits (positions, vocabulary); weights are widened chunk by chunk, not as a whole."""
        head = self.model.get_output_embeddings()
        if head.weight.dtype == torch.float32:
            logits: torch.Tensor = head(hidden.float())
        else:
            chunks = head.weight.split(VOCABULARY_CHUNK)
            logits = torch.cat([hidden.float() @ chunk.float().T for chunk in chunks], dim=-1)
        config = self.model.config.get_text_config()
        cap = getattr(config, "final_logit_softcapping", None)
        if cap:
            logits = torch.tanh(logits / cap) * cap
        return logits

    @torch.inference_mode()
    def _check_head(self) -> None:
        """Compare `_head` with the model's own logits once: an unknown step after the head is refused."""
        ids = torch.tensor([[*self.encoder.encode("Water and ice"), *self.encoder.encode("!")[-1:]]])
        cache = RowCache(self._layers, rows=1, columns=ids.shape[1])
        cache.set_extent(1, 0)
        ours = self._head(self._hidden(ids, cache)[:, -1])
        theirs = self.model(input_ids=ids.to(self.device)).logits[:, -1].float()
        difference = (ours.log_softmax(-1) - theirs.log_softmax(-1)).abs().max().item()
        tolerance = 1e-2 if self.model.dtype == torch.float32 else 0.5
        if not difference <= tolerance:
            raise ModelLoadError(
                f"{type(self.model).__name__}: scores from the engine differ from the model's own by "
                f"{difference:.3g} nat (allowed {tolerance}); this architecture treats its logits or its "
                "cache in a way the transformers engine does not know. Use another engine for it.",
                difference=difference,
            )


class _DecodingBatch:
    """The live rows of one `complete` call and the queue behind them."""

    def __init__(self, engine: TransformersEngine, requests: Sequence[CompletionRequest]) -> None:
        self.engine = engine
        decode = engine.encoder.decode
        order = sorted(range(len(requests)), key=lambda i: (-len(requests[i].prompt_ids), i))
        self.queue = deque(_Row(i, requests[i], StopMatcher(requests[i].stop, decode)) for i in order)
        self.prefix = shared_prefix([r.prompt_ids[:-1] for r in requests])
        self.longest_prompt = max(len(r.prompt_ids) for r in requests)
        new = max(r.max_new_tokens for r in requests)
        self.columns = self.longest_prompt + new + COLUMN_SLACK
        self.slots = min(engine.batch_size, len(requests))
        self.cache = RowCache(engine._layers, self.slots, self.columns)
        self.cache.set_extent(0, self.longest_prompt)
        self.history = torch.zeros((self.slots, self.longest_prompt + new), dtype=torch.long)
        self.rows: list[_Row] = []
        self.sampling: RowSampling | None = None

    def refill(self) -> None:
        """Let waiting requests join once an eighth of the rows is free (joining one by one is slow)."""
        free = self.slots - len(self.rows)
        if not self.queue or (self.rows and free < max(1, self.slots // 8)):
            return
        joining = [self.queue.popleft() for _ in range(min(free, len(self.queue)))]
        # All but the last prompt token: the first decoding step feeds that one and yields the first token.
        known = [row.request.prompt_ids[:-1] for row in joining]
        prefilled = [i for i, ids in enumerate(known) if ids]
        for group, _, filled in self.engine.forward_suffixes(self.prefix, [known[i] for i in prefilled]):
            for position, i in enumerate(group):
                self._join(joining[prefilled[i]], filled, position)
        for row in (joining[i] for i, ids in enumerate(known) if not ids):
            self._join(row, self.cache, 0)
        self.sampling = None

    def _join(self, row: _Row, filled: RowCache, position: int) -> None:
        length = len(row.request.prompt_ids) - 1
        slot = self.cache.join(filled, position, length)
        ids = torch.tensor(row.request.prompt_ids)
        self.history[slot] = ids[0]
        self.history[slot, : len(ids)] = ids
        self.rows.append(row)

    def step(self) -> list[tuple[_Row, str]]:
        """Decode one token for every live row; return the rows that finished and why."""
        n = len(self.rows)
        if self.cache.t + 1 > self.columns:
            used = self.cache.t - int(self.cache.start[:n].min())
            self.cache.shift_left(self.cache.t - max(used, self.longest_prompt))
        chosen = self._choose(self._logits(n), n)
        self.cache.advance()
        finished: list[tuple[int, str]] = []
        for position, (row, token) in enumerate(zip(self.rows, chosen, strict=True)):
            row.ids.append(token)
            self.history[position, len(row.request.prompt_ids) + len(row.ids) - 1] = token
            if reason := row.finish_reason(self.engine._eos):
                finished.append((position, reason))
        return self._leave(finished)

    def _logits(self, n: int) -> torch.Tensor:
        device = self.engine.device
        last = [row.ids[-1] if row.ids else row.request.prompt_ids[-1] for row in self.rows]
        mask, positions = self.cache.step_inputs(device)
        output = self.engine.model(
            input_ids=torch.tensor(last, device=device)[:, None],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _choose(self, logits: torch.Tensor, n: int) -> list[int]:
        device = self.engine.device
        if self.sampling is None:
            self.sampling = RowSampling([row.request.sampling for row in self.rows], device)
        if self.sampling.penalised:
            lengths = (len(row.request.prompt_ids) + len(row.ids) for row in self.rows)
            history = self.history[:n, : max(lengths)].to(device)
            logits = penalise_repetition(logits, history, self.sampling.penalty)
        uniforms = torch.stack([row.uniforms[len(row.ids)] for row in self.rows]).to(device)
        chosen: list[int] = choose_next(logits, uniforms, self.sampling).tolist()
        return chosen

    def _leave(self, finished: list[tuple[int, str]]) -> list[tuple[_Row, str]]:
        left = []
        for position, reason in reversed(finished):
            left.append((self.rows[position], reason))
            last = self.rows.pop()
            self.cache.leave(position)
            self.history[position] = self.history[len(self.rows)]
            if position < len(self.rows):
                self.rows[position] = last
        if finished:
            self.sampling = None
        return left[::-1]


def _groups(
    order: Sequence[int], sequences: Sequence[Sequence[int]], tokens: int, rows: int
) -> Iterator[list[int]]:
    """Split `order` (longest first) so that rows x longest stays within `tokens` and `rows`."""
    group: list[int] = []
    for index in order:
        if group and (len(group) >= rows or (len(group) + 1) * len(sequences[group[0]]) > tokens):
            yield group
            group = []
        group.append(index)
    if group:
        yield group
