"""A model's own next-token losses on plain text, and the plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Written for this project; ordinary facts and small scenes, so that every language model trained on
# English finds them easy, and no tokenizer has reason to split their words.
SENTENCES = (
    "The children walked along the river until the sun went down behind the hills.",
    "Most people drink coffee or tea in the morning before they go to work.",
    "A bicycle has two wheels, and its rider keeps it upright by moving forward.",
    "When winter comes, many birds fly south because food is hard to find in the snow.",
    "She opened the window, looked at the garden, and decided to plant some tomatoes.",
    "The library closes at six, but the small café across the street stays open until nine.",
)


def token_losses(model: Any, ids: Sequence[int], device: str) -> list[float]:
    """Loss in nats of every token but the first, given the ones before it. Shape (len(ids) - 1,)."""
    import torch

    with torch.inference_mode():
        tensor = torch.tensor([list(ids)], device=device)
        logits = model(input_ids=tensor, use_cache=False).logits[0, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits, tensor[0, 1:], reduction="none")
    return [float(loss) for loss in losses.cpu()]
