"""What the benchmarks share: the loaded bundled model, prompts of the pipeline, a stopwatch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core.engines.transformers import TransformersEngine
from core.prompts.registry import render_response
from core.prompts.seeds import load_seeds
from core.settings import get_settings


def bundled_engine(batch_size: int, dtype: str = "auto") -> TransformersEngine:
    """The transformers engine over the bundled base model."""
    from core.models.loader import load_model
    from core.models.spec import ModelSpec

    spec = ModelSpec(source="bundled", dtype=dtype)
    return TransformersEngine(load_model(spec, cache_dir=get_settings().model_cache_dir), batch_size)


def response_prompts(engine: TransformersEngine, count: int) -> list[tuple[int, ...]]:
    """Token ids of `count` few-shot response prompts over the seed instructions."""
    seeds = load_seeds()
    shots = [(s.id, s.instruction, s.response) for s in seeds[::40]]
    targets = [seeds[i % len(seeds)].instruction for i in range(count)]
    return [engine.encoder.encode(render_response(text, shots).text) for text in targets]


class Watch:
    """Seconds of the last timed block."""

    seconds = 0.0


@contextmanager
def timed() -> Iterator[Watch]:
    """Measure the wall time of a block."""
    watch = Watch()
    started = time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - started


def left_padded(prompts: list[tuple[int, ...]]) -> tuple[Any, Any]:
    """Ids and attention mask of shape (prompts, longest), padded on the left."""
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[p[0]] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask
