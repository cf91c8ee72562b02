"""How the tiny test model of `tiny.py` is trained: tokenizer, batches, optimizers, one loop.

Sizes and rates come from a search on two cores: at the same training time, right answers to 160
instructions rose from 10 to about 120. Most of that came from starting on rows that hold a single
pair, from larger initial embeddings, and from Muon (AdamW alone gets 3 right).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.models.tiny_corpus import Segment, draw_answered_pairs, draw_document, draw_snippet

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

END_OF_TEXT = "<|endoftext|>"
BEGIN_OF_TEXT = "<|begin|>"
IGNORED = -100


@dataclass(frozen=True)
class RowShape:
    """A shape of batch, and its share of the steps at the start and at the end.

    A row is one document, padded, or where `packed` as many as fit.
    """

    rows: int
    tokens: int
    draw: Callable[[random.Random], list[Segment]]
    packed: bool
    first_ratio: float
    last_ratio: float


SHAPES = (
    RowShape(20, 28, draw_snippet, packed=False, first_ratio=0.95, last_ratio=0.45),
    RowShape(8, 96, draw_answered_pairs, packed=False, first_ratio=0.00, last_ratio=0.25),
    RowShape(2, 384, draw_document, packed=True, first_ratio=0.05, last_ratio=0.30),
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, apart from the grammar and the shapes of the rows."""

    seed: int = 7
    vocabulary: int = 2048
    tokenizer_documents: int = 1500
    hidden: int = 128
    intermediate: int = 352
    layers: int = 2
    heads: int = 4
    context_tokens: int = 2048
    embedding_std: float = 0.1
    steps: int = 560
    warmup_steps: int = 15
    matrix_rate: float = 0.015
    other_rate: float = 0.008
    threads: int = 2


def make_tokenizer(recipe: Recipe) -> Tokenizer:
    """Byte-level BPE, merged on the corpus; every text survives encode and decode unchanged."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[END_OF_TEXT, BEGIN_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(recipe.seed)
    documents = (draw_document(rng) for _ in range(recipe.tokenizer_documents))
    texts = ("".join(part.text for part in document) for document in documents)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_model(recipe: Recipe, tokenizer: Tokenizer) -> LlamaForCausalLM:
    """An untrained float32 model; its weights come from torch's default generator."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context_tokens,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BEGIN_OF_TEXT),
        eos_token_id=tokenizer.token_to_id(END_OF_TEXT),
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=recipe.embedding_std)
    return model


def _encode(document: list[Segment], tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """(token id, label) pairs of one document, the end-of-text token last."""
    pairs: list[tuple[int, int]] = []
    for part in document:
        ids = tokenizer.encode(part.text).ids
        pairs += [(token, token if part.learn else IGNORED) for token in ids]
    end = tokenizer.encode(END_OF_TEXT).ids
    return pairs + [(token, token) for token in end]


def _row(rng: random.Random, shape: RowShape, tokenizer: Tokenizer) -> list[tuple[int, int]]:
    row = _encode(shape.draw(rng), tokenizer)
    while len(row) < shape.tokens:
        row += _encode(shape.draw(rng), tokenizer) if shape.packed else [(0, IGNORED)]
    return row[: shape.tokens]


def _batches(tokenizer: Tokenizer, recipe: Recipe) -> Iterator[torch.Tensor]:
    """One batch a step, longer rows more often as training goes on. Shape (rows, tokens, 2)."""
    import torch

    rng = random.Random(recipe.seed + 1)
    for step in range(recipe.steps):
        done = step / recipe.steps
        weights = [s.first_ratio + (s.last_ratio - s.first_ratio) * done for s in SHAPES]
        shape = rng.choices(SHAPES, weights=weights)[0]
        yield torch.tensor([_row(rng, shape, tokenizer) for _ in range(shape.rows)])


def _optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for embeddings and norms."""
    from torch.optim import AdamW, Muon

    named = list(model.named_parameters())
    inner = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    outer = [p for name, p in named if p.ndim != 2 or "embed" in name]
    return [
        # Three Newton-Schulz steps instead of five: as good here, and a tenth of the time.
        Muon(
            inner,
            lr=recipe.matrix_rate,
            weight_decay=0.0,
            adjust_lr_fn="match_rms_adamw",
            ns_steps=3,
        ),
        AdamW(outer, lr=recipe.other_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _rate_ratio(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then linearly down to a hundredth."""
    left = (recipe.steps - step) / (recipe.steps - recipe.warmup_steps)
    return min((step + 1) / recipe.warmup_steps, max(left, 0.01), 1.0)


def _loss(model: LlamaForCausalLM, batch: torch.Tensor) -> torch.Tensor:
    """Mean nats per learnt token; the others never reach the vocabulary-wide product."""
    import torch

    ids, labels = batch[..., 0], batch[:, 1:, 1]
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    learnt = labels != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[learnt]), labels[learnt])


def train(model: LlamaForCausalLM, tokenizer: Tokenizer, recipe: Recipe) -> float:
    """Mean training loss in nats per learnt token over the last tenth of the steps."""
    from torch.optim.lr_scheduler import LambdaLR

    model.train()
    optimizers = _optimizers(model, recipe)
    schedules = [LambdaLR(each, lambda step: _rate_ratio(step, recipe)) for each in optimizers]
    losses: list[float] = []
    for batch in _batches(tokenizer, recipe):
        loss = _loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    tail = losses[-max(1, recipe.steps // 10) :]
    return sum(tail) / len(tail)
