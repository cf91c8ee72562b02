"""Cleaning of generated text, with the names of the rules that changed it.

Blank lines inside an answer are content and stay. Nothing is cut for being long.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cleaned:
    """Text after all rules, and which of them changed it, in order."""

    text: str
    rules: tuple[str, ...]


Rule = tuple[str, Callable[[str], str]]

_NEW_TURN = re.compile(r"\n\s*(?:Instruction|Response)\s*:", re.IGNORECASE)
_PARTIAL_DELIMITER = re.compile(r"\n\s*Instruction\s*$")


def _strip_lines(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n"))


def _collapse_blank_runs(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text)


def _drop_label_echo(text: str) -> str:
    return re.sub(r"^\s*Response:\s*", "", text)


def _cut_new_turn(text: str) -> str:
    """Cut where the text starts another few-shot turn at the beginning of a line."""
    hit = _NEW_TURN.search(text)
    return text[: hit.start()] if hit else text


RESPONSE_RULES: tuple[Rule, ...] = (
    ("drop_label_echo", _drop_label_echo),
    ("cut_new_turn", _cut_new_turn),
    ("drop_partial_delimiter", lambda text: _PARTIAL_DELIMITER.sub("", text)),
    ("strip_line_ends", _strip_lines),
    ("collapse_blank_runs", _collapse_blank_runs),
    ("strip", str.strip),
)

INSTRUCTION_RULES: tuple[Rule, ...] = (
    ("drop_label_echo", lambda text: re.sub(r"^\s*(?:Instruction|Task)\s*:\s*", "", text)),
    ("drop_emphasis", lambda text: re.sub(r"^\*\*(.+?)\*\*", r"\1", text)),
    ("join_spaces", lambda text: re.sub(r"[ \t]{2,}", " ", text)),
    ("strip", str.strip),
)


def clean(text: str, rules: tuple[Rule, ...]) -> Cleaned:
    """Apply every rule once, in order; surrounding whitespace alone does not count as a change."""
    fired = []
    for name, rule in rules:
        changed = rule(text)
        if changed.strip() != text.strip():
            fired.append(name)
        text = changed
    return Cleaned(text, tuple(fired))
