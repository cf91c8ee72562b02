"""Instructions that point at something which is not there: a picture, a text, "these words"."""

from __future__ import annotations

import re

_POINTS_AT = re.compile(
    r"""\b(?:
      these\s+(?!days\b)\w+
    | (?:the\s+)?following
    | (?:below|above)(?=[.,?!]|$)
    | (?:in|on|of|from)\s+(?:the|this)\s+
      (?:picture|image|photo|map|chart|table|diagram|list|passage|paragraph|text|article|box)
    | this\s+(?:sentence|passage|paragraph|text|article|picture|image|list|word|story|poem)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_GIVES_IT = re.compile(r"[:\"“”‘`]|'\w[^']*'")


def misses_its_input(instruction: str) -> bool:
    """Whether an instruction refers to an input that it does not hold.

    "Sort these numbers: 3, 1, 2." and "Fix this sentence: "I is."" hold theirs, after a colon or in
    quotes; "Write the name of each of these animals." does not.
    """
    return bool(_POINTS_AT.search(instruction)) and not _GIVES_IT.search(instruction)
