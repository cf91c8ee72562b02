"""The mechanical screen of generation, made of QC's detectors."""

from __future__ import annotations

from core.generation.plan import Screen
from core.qc.detectors import (
    detect_delimiter_leakage,
    detect_empty_or_echo,
    detect_runaway,
    detect_truncation,
    detect_unsafe,
)
from core.qc.finding import Finding
from core.qc.thresholds import QCThresholds


def mechanical_screen(thresholds: QCThresholds) -> Screen:
    """A screen that names the first detector which objects, looking at the newest text of each item.

    The newest text is the response, or the instruction where there is no response yet.
    """

    def screen(items: list[tuple[str, str | None]]) -> list[str | None]:
        texts = [instruction if response is None else response for instruction, response in items]
        unsafe = detect_unsafe(texts, unsafe_probability=thresholds.unsafe_probability)
        return [_objection(*item, finding, thresholds) for item, finding in zip(items, unsafe, strict=True)]

    return screen


def _objection(
    instruction: str, response: str | None, unsafe: Finding | None, thresholds: QCThresholds
) -> str | None:
    text = instruction if response is None else response
    if unsafe:
        return "unsafe"
    if response is not None and detect_empty_or_echo(instruction, response):
        return "empty_or_echo"
    if detect_runaway(text, repeat_4gram_ratio=thresholds.repeat_4gram_ratio):
        return "runaway"
    if detect_delimiter_leakage(text):
        return "delimiter_leakage"
    return "truncation" if detect_truncation(text) else None
