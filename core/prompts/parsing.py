"""Reading a numbered list that a model went on with.

The prompt itself ends on an open number (`9.`), so the first generated line belongs to that number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBERED = re.compile(r"^\s*(\d{1,4})\s*[.)]\s*(.*)$")


@dataclass(frozen=True)
class ListItem:
    """One item. `complete` is false for the last one when the text was cut by the token limit."""

    number: int
    text: str
    complete: bool


@dataclass(frozen=True)
class ParsedList:
    """Items in order, and why reading stopped before the end of the text, if it did."""

    items: tuple[ListItem, ...]
    broke_off: str | None


def parse_numbered_list(text: str, first_number: int, *, cut: bool) -> ParsedList:
    """Items of a list whose number `first_number` stands open at the end of the prompt.

    Reading stops where the list does: at a number out of order, or at a line without a number after
    a blank line. A line without a number right below an item goes on with it.

    Args:
        cut: the text ended at the token limit, so its last item may be incomplete.
    """
    lines = text.split("\n")
    numbers, texts = [first_number], [lines[0].strip()]
    broke_off, blank = None, False
    for line in lines[1:]:
        match = _NUMBERED.match(line)
        if match and int(match[1]) == numbers[-1] + 1:
            numbers.append(int(match[1]))
            texts.append(match[2].strip())
        elif match:
            broke_off = f"number {match[1]} after {numbers[-1]}"
        elif line.strip() and blank:
            broke_off = "text after the list"
        elif line.strip():
            texts[-1] = f"{texts[-1]}\n{line.strip()}" if texts[-1] else line.strip()
        if broke_off:
            break
        blank = not line.strip()
    last = len(texts) - 1
    items = [
        ListItem(number, item, complete=not (cut and position == last and broke_off is None))
        for position, (number, item) in enumerate(zip(numbers, texts, strict=True))
    ]
    return ParsedList(tuple(items), broke_off)
