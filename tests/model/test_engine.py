"""The transformers engine on the real bundled base model, against plain transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from core.engines.base import CompletionRequest, Continuation, Sampling
from core.engines.transformers import TransformersEngine
from core.errors import BadInputError
from core.prompts.registry import render_response, response_stops
from core.prompts.seeds import load_seeds

QUESTIONS = [
    "What is the capital of France?",
    "Name two colors.",
    "Explain why the sky is blue in two sentences or so, please, for a child who likes kites.",
    "Write a short poem about rain.",
    "What is the opposite of hot?",
    "List four animals.",
    "How many days are in a week?",
    "Hi.",
]


@pytest.fixture(scope="module")
def engine(bundled_model: Any) -> TransformersEngine:
    return TransformersEngine(bundled_model, batch_size=3)


def prompt(engine: TransformersEngine, question: str) -> tuple[int, ...]:
    shots = [(s.id, s.instruction, s.response) for s in load_seeds()[::60]]
    return engine.encoder.encode(render_response(question, shots).text)


def requests(engine: TransformersEngine, sampling: Sampling, new: int = 30) -> list[CompletionRequest]:
    return [
        CompletionRequest(str(i), prompt(engine, q), new, sampling, response_stops(), seed=i)
        for i, q in enumerate(QUESTIONS)
    ]


def test_greedy_equals_plain_generate(engine: TransformersEngine) -> None:
    """With rows joining and leaving, every greedy completion is what `generate` alone writes."""
    for question, done in zip(QUESTIONS, engine.complete(requests(engine, Sampling())), strict=True):
        ids = torch.tensor([prompt(engine, question)])
        out = engine.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False
        )
        expected = out[0, ids.shape[1] :].tolist()[: len(done.token_ids)]
        assert list(done.token_ids) == expected, question


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, 0.9, 64, 1.1)])
def test_results_do_not_depend_on_the_batch(engine: TransformersEngine, sampling: Sampling) -> None:
    """Alone, in a batch, or in reverse order: the same tokens for the same request."""
    todo = requests(engine, sampling)
    together = {c.request_id: c.token_ids for c in engine.complete(todo)}
    backwards = {c.request_id: c.token_ids for c in engine.complete(todo[::-1])}
    alone = {r.request_id: engine.complete([r])[0].token_ids for r in todo}
    assert together == backwards == alone


def test_finish_reasons_and_trimming(engine: TransformersEngine) -> None:
    """A stop string is trimmed from the text and kept in the raw text; a short limit says `length`."""
    done = engine.complete(requests(engine, Sampling()))
    stopped = [c for c in done if c.finish_reason == "stop:\nInstruction:"]
    assert stopped
    for completion in stopped:
        assert "Instruction:" not in completion.text and "\nInstruction:" in completion.raw_text
        assert completion.raw_text.startswith(completion.text)
    cut = engine.complete(requests(engine, Sampling(), new=2))
    assert {c.finish_reason for c in cut} == {"length"}
    assert all(c.completion_tokens == 2 for c in cut)


def test_scores_equal_a_full_forward_pass(engine: TransformersEngine) -> None:
    """Shared-prefix scores of labels and continuations agree with the model's own within 1e-3 nat."""
    contexts = [prompt(engine, q) for q in QUESTIONS]
    wanted = [engine.encoder.encode_continuation(t)[0] for t in (" A", " B", " Paris")]
    items = [Continuation(c, engine.encoder.encode_continuation(" Red and blue.\n")) for c in contexts]
    labels = engine.score_next(contexts, wanted)
    tokens = engine.score_continuations(items)
    for context, item, row, scores in zip(contexts, items, labels, tokens, strict=True):
        ids = torch.tensor([context + item.continuation_ids])
        with torch.inference_mode():
            full = engine.model(ids).logits[0].float().log_softmax(-1).numpy()
        at = len(context) - 1
        assert row.dtype == scores.dtype == np.float32
        np.testing.assert_allclose(row, full[at, wanted], atol=1e-3)
        own = [full[at + k, token] for k, token in enumerate(item.continuation_ids)]
        np.testing.assert_allclose(scores, own, atol=1e-3)


def test_prompts_of_one_token_and_none(engine: TransformersEngine) -> None:
    """A prompt of one token works; an empty one, or one beyond the context, is refused in words."""
    bos = engine.encoder.encode("")
    (one,) = engine.complete([CompletionRequest("a", bos, 3)])
    assert one.completion_tokens == 3
    with pytest.raises(BadInputError, match="empty prompt"):
        engine.complete([CompletionRequest("a", (), 3)])
    with pytest.raises(BadInputError, match="context holds"):
        engine.complete([CompletionRequest("a", bos, 10**6)])
