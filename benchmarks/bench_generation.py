"""Generation against its limit and against plain `generate`, in one run.

limit     the same 64 prompts, prefill and a bare forward loop with a KV cache: no sampling, no stops
engine    the same job through the engine: sampling, stop strings (that never match), penalties off
generate  transformers' own `generate`, batch 32, top-p 0.9, stop strings, on a real workload
"""

from __future__ import annotations

from typing import Any

import torch
from common import bundled_engine, left_padded, response_prompts, timed
from transformers import StoppingCriteriaList, StopStringCriteria

from core.engines.base import CompletionRequest, Sampling

BATCH = 64
STEPS = 48
REAL_PROMPTS = 128
SAMPLING = Sampling(temperature=0.4, top_p=0.9, top_k=64)
STOP = ("\nInstruction:",)


@torch.inference_mode()
def bare_loop(model: Any, prompts: list[tuple[int, ...]], steps: int) -> float:
    """Seconds for prefill and `steps` forward steps of the whole batch, next token not even chosen."""
    ids, mask = left_padded(prompts)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with timed() as watch:
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
        )
        cache, last, place = out.past_key_values, ids[:, -1:], positions[:, -1:]
        for _ in range(steps):
            mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
            place = place + 1
            out = model(
                input_ids=last,
                attention_mask=mask,
                position_ids=place,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
    return watch.seconds


def through_engine(
    engine: Any, prompts: list[tuple[int, ...]], steps: int, stop: tuple[str, ...]
) -> tuple[float, int]:
    """Seconds and completion tokens for the prompts through the engine."""
    requests = [CompletionRequest(str(i), p, steps, SAMPLING, stop, seed=i) for i, p in enumerate(prompts)]
    with timed() as watch:
        done = engine.complete(requests)
    return watch.seconds, sum(c.completion_tokens for c in done)


@torch.inference_mode()
def plain_generate(loaded: Any, prompts: list[tuple[int, ...]], steps: int) -> tuple[float, int]:
    """Seconds and useful tokens (up to the stop) of `generate` in batches of 32."""
    model, tokenizer = loaded.model, loaded.tokenizer
    stops = StoppingCriteriaList([StopStringCriteria(tokenizer, list(STOP))])
    tokens = 0
    with timed() as watch:
        for begin in range(0, len(prompts), 32):
            ids, mask = left_padded(prompts[begin : begin + 32])
            out = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=steps,
                do_sample=True,
                temperature=SAMPLING.temperature,
                top_p=SAMPLING.top_p,
                top_k=0,
                stopping_criteria=stops,
                pad_token_id=loaded.eos_token_ids[0],
            )
            pad = loaded.eos_token_ids[0]
            tokens += int((out[:, ids.shape[1] :] != pad).sum())
    return watch.seconds, tokens


def main() -> None:
    """Print tokens/s of the three and their ratios."""
    engine = bundled_engine(BATCH)
    prompts = response_prompts(engine, BATCH)
    never = ("\x00never\x00",)
    through_engine(engine, prompts[:8], 4, never)  # warm-up
    limit_s = bare_loop(engine.model, prompts, STEPS)
    engine_s, tokens = through_engine(engine, prompts, STEPS, never)
    limit = BATCH * STEPS / limit_s
    ours = tokens / engine_s
    print(f"dtype {engine.model.dtype}, batch {BATCH}, {STEPS} new tokens, prefill included")
    print(f"  bare forward loop   {limit:7.1f} tok/s")
    print(f"  engine              {ours:7.1f} tok/s   ratio {ours / limit:.2f} (at least 0.80)")
    real = response_prompts(engine, REAL_PROMPTS)
    engine_s, tokens = through_engine(engine, real, 80, STOP)
    plain_s, plain_tokens = plain_generate(engine.loaded, real[:64], 80)
    ours, plain = tokens / engine_s, plain_tokens / plain_s
    print("real workload: stop strings, up to 80 new tokens, useful tokens per second")
    print(f"  generate, batch 32  {plain:7.1f} tok/s")
    print(f"  engine, batch 64    {ours:7.1f} tok/s   ratio {ours / plain:.1f} (at least 4)")


if __name__ == "__main__":
    main()
