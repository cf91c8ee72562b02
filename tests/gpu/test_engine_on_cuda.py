"""The transformers engine and quantised loading on a CUDA device, with the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.engines.base import CompletionRequest, Continuation, Sampling
from core.engines.transformers import TransformersEngine
from core.models.loader import load_model
from core.models.spec import ModelSpec

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def engine_of(cache_dir: Path, batch_size: int = 4, **spec: Any) -> TransformersEngine:
    loaded = load_model(ModelSpec("tiny", device="cuda", **spec), cache_dir=cache_dir)
    return TransformersEngine(loaded, batch_size)


def requests(engine: TransformersEngine, sampling: Sampling) -> list[CompletionRequest]:
    asked = ("three fruits", "two colors", "a bird", "it")
    texts = [f"Instruction: Name {words}.\nResponse:" for words in asked]
    texts += ["1. Name three fruits.\n2.", "Water", "1."]
    return [
        CompletionRequest(str(i), engine.encoder.encode(text), 24, sampling, ("\n",), seed=i)
        for i, text in enumerate(texts)
    ]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, 0.9, 64, 1.1)])
def test_batch_does_not_matter_on_cuda(cache_dir: Path, sampling: Sampling) -> None:
    """In float32 a request gives the same tokens alone and in a batch."""
    engine = engine_of(cache_dir, dtype="float32")
    todo = requests(engine, sampling)
    together = [c.token_ids for c in engine.complete(todo)]
    assert together == [engine.complete([r])[0].token_ids for r in todo]


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-3), ("bfloat16", 0.15)])
def test_scores_agree_with_a_full_pass_on_cuda(cache_dir: Path, dtype: str, atol: float) -> None:
    """Scores are float32 and agree with a reading of the model's own logits."""
    engine = engine_of(cache_dir, dtype=dtype)
    context = engine.encoder.encode("Instruction: Name three fruits.\nResponse:")
    tokens = engine.encoder.encode_continuation(" Apple, pear, and plum.")
    (scores,) = engine.score_continuations([Continuation(context, tokens)])
    ids = torch.tensor([context + tokens], device="cuda")
    with torch.inference_mode():
        full = engine.model(ids).logits[0].float().log_softmax(-1).cpu().numpy()
    own = [full[len(context) - 1 + k, token] for k, token in enumerate(tokens)]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, own, atol=atol)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantisation_on_cuda_is_probed(cache_dir: Path, quantization: str) -> None:
    """What was asked for is what the loaded modules are, and the engine writes with it."""
    engine = engine_of(cache_dir, quantization=quantization)
    identity = engine.loaded.identity
    assert identity.quantization == quantization and identity.quantized_modules > 0
    assert all(c.completion_tokens for c in engine.complete(requests(engine, Sampling())))
