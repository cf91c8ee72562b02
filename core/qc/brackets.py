"""Whether a text ends inside a code fence, a bracket or a quotation.

Only what was opened in the last paragraph counts (a fence counts anywhere): a bracket forgotten far
from the end is a slip of the pen, and a quotation over several paragraphs opens each of them anew.
Single quotes are not looked at, because an apostrophe is one.
"""

from __future__ import annotations

import re

_EMOTICON = re.compile(r"(?<![^\s(])(?::'|[:;=8xX])[-^o]?[(\[{<|/\\@]+(?=[\s.,!?)]|$)")
_MIRRORED = re.compile(r"(?<!\S)[(\[][-']?[:;](?=\s|$)")
_INLINE_CODE = re.compile(r"(`+)(?=\S)[^\n]*?\1")
_ESCAPED = re.compile(r"\\.")
_OPENERS = "([{（【"
_BRACKET = re.compile(r"[(\[{（【)\]}）】]")
_PAIRED_QUOTES = {"„": "“”", "“": "”", "「": "」", "『": "』", "《": "》"}
_QUOTE = re.compile(r"[„“”「」『』《》]")
_OPEN_BEFORE = frozenset(" \t\n([{-–—/=:,<>（“„")


def unclosed(text: str) -> tuple[int, str] | None:
    """Start and name of the outermost thing still open at the end; None if there is none."""
    fence = _open_fence(text)
    if fence is not None:
        return fence, "a code fence"
    start = _last_paragraph_start(text)
    part = text[start:]
    for harmless in (_INLINE_CODE, _ESCAPED, _EMOTICON, _MIRRORED):
        part = _blank(harmless, part)
    for found in (_open_bracket(part), _open_paired_quote(part), _open_straight(part)):
        if found is not None:
            return start + found[0], found[1]
    return None


def _open_fence(text: str) -> int | None:
    starts = [match.start() for match in re.finditer(r"^[ \t]*(?:```|~~~)", text, re.MULTILINE)]
    return starts[-1] if len(starts) % 2 else None


def _last_paragraph_start(text: str) -> int:
    """After the last blank line outside code; code that spans blank lines is one paragraph."""
    breaks = [match.end() for match in re.finditer(r"\n[ \t]*\n", text)]
    return breaks[-1] if breaks else 0


def _blank(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(lambda match: " " * len(match.group()), text)


def _open_bracket(text: str) -> tuple[int, str] | None:
    stack: list[int] = []
    for match in _BRACKET.finditer(text):
        if match.group() in _OPENERS:
            stack.append(match.start())
        elif stack:
            # [0, 1) is closed: mathematics mixes the kinds, so any closer closes any opener.
            stack.pop()
    return (stack[0], f"the bracket {text[stack[0]]!r}") if stack else None


def _open_paired_quote(text: str) -> tuple[int, str] | None:
    opened: tuple[int, str] | None = None
    for match in _QUOTE.finditer(text):
        char = match.group()
        if opened is None:
            if char in _PAIRED_QUOTES:
                opened = (match.start(), _PAIRED_QUOTES[char])
        elif char in opened[1]:
            opened = None
    return (opened[0], f"the quotation {text[opened[0]]!r}") if opened else None


def _open_straight(text: str) -> tuple[int, str] | None:
    """An opening `"` or backtick that nothing closes. An inch sign follows a digit, opens none."""
    for mark in ('"', "`"):
        opened: int | None = None
        index = text.find(mark)
        while index >= 0:
            if opened is not None:
                opened = None
            elif _opens(text, index):
                opened = index
            index = text.find(mark, index + 1)
        if opened is not None:
            return opened, "a quotation" if mark == '"' else "a code span"
    return None


def _opens(text: str, index: int) -> bool:
    before = text[index - 1] if index else " "
    after = text[index + 1] if index + 1 < len(text) else " "
    return before in _OPEN_BEFORE and not after.isspace()
