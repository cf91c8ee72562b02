"""Critic prompts that share a rubric, against a forward pass over the full prompts at the same batch."""

from __future__ import annotations

import numpy as np
import torch
from common import bundled_engine, left_padded, timed

from core.prompts.registry import render_label_prompt
from core.prompts.seeds import load_seeds

BATCH = 32
PROMPTS = 96


def main() -> None:
    """Print prompts/s of both and the ratio, and how far the scores are apart."""
    engine = bundled_engine(BATCH)
    items = [{"instruction": s.instruction, "response": s.response} for s in load_seeds()[:PROMPTS]]
    prompts = [engine.encoder.encode(render_label_prompt("critic_pair", item, "A", "B")) for item in items]
    labels = [engine.encoder.encode_continuation(text)[0] for text in (" A", " B")]
    engine.score_next(prompts[:4], labels)  # warm-up of the code, with another prefix length
    engine._prefixes.clear()
    with timed() as ours:
        scores = engine.score_next(prompts, labels)
    with timed() as full, torch.inference_mode():
        expected = []
        for begin in range(0, PROMPTS, BATCH):
            ids, mask = left_padded(prompts[begin : begin + BATCH])
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            out = engine.model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1)
            expected.append(out.logits[:, -1].float().log_softmax(-1)[:, labels].numpy())
    apart = float(np.abs(np.concatenate(expected) - scores).max())
    print(f"dtype {engine.model.dtype}, batch {BATCH}, {PROMPTS} prompts of about {len(prompts[0])} tokens")
    print(f"  full prompts        {PROMPTS / full.seconds:6.1f} prompts/s")
    print(
        f"  shared rubric once  {PROMPTS / ours.seconds:6.1f} prompts/s   "
        f"ratio {full.seconds / ours.seconds:.2f} (at least 2.5)"
    )
    print(f"  largest difference  {apart:.2g} nat")


if __name__ == "__main__":
    main()
