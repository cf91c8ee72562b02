"""Counts from first instruction candidate to accepted pair, with what fell where and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class FunnelCounts:
    """How many items were at each step; None means not recorded, which is never read as zero.

    `*_rejections` map a reason (`duplicate_exact`, `critic_margin`, `format`, ...) to a count.
    `duplicates_*` count instruction candidates that were thrown out for being a duplicate of that
    kind. `near_duplicates_kept` is what the de-duplicator let through; QC counts again by itself
    and takes the greater number.
    """

    instruction_candidates: int | None = None
    instruction_rejections: Mapping[str, int] | None = None
    instructions_judged: int | None = None
    instructions_accepted: int | None = None
    response_candidates: int | None = None
    response_rejections: Mapping[str, int] | None = None
    pairs_judged: int | None = None
    pairs_accepted: int | None = None
    duplicates_exact: int | None = None
    duplicates_near: int | None = None
    duplicates_seed: int | None = None
    duplicates_held_out: int | None = None
    near_duplicates_kept: int | None = None
