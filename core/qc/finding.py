"""What a detector says about one text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """`detector` flagged `span` (start, end in characters) of `field` because of `why`."""

    detector: str
    why: str
    span: tuple[int, int]
    field: Literal["instruction", "response"] = "response"
