"""The tokens that prompts share at their start."""

from __future__ import annotations

from collections.abc import Sequence

MIN_SHARED_TOKENS = 8
"""Below this, computing a prefix on its own costs more than it saves."""


def shared_prefix(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Ids that all prompts begin with, empty when too few; at least one own token is left to each.

    Comparing the smallest and the largest prompt is enough: what they share, all share.
    """
    if len(prompts) < 2:
        return ()
    low, high = min(map(tuple, prompts)), max(map(tuple, prompts))
    limit = min(len(prompt) for prompt in prompts) - 1
    length = 0
    while length < limit and low[length] == high[length]:
        length += 1
    return low[:length] if length >= MIN_SHARED_TOKENS else ()
