"""A response that is empty of content, or that only says the instruction again."""

from __future__ import annotations

import re
import unicodedata

from core.qc.finding import Finding

NAME = "empty_or_echo"
ECHO_LEAD_WORDS = 4
ECHO_MAX_EXTRA_WORDS = 2

_PLACEHOLDER = re.compile(r"(?:[-*•_.…>#\s]|```\w*|\d{1,3}[.)](?=\s*$))*")
_LEAD = re.compile(r"^\s*(?:>\s*)?(?:[-*•]\s+|\d{1,3}[.)]\s+)?(?:Instruction\s*:)?", re.IGNORECASE)
_TOKEN = re.compile(r"\w+(?:['’]\w+)?")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


def detect_empty_or_echo(instruction: str, response: str) -> Finding | None:
    """Finding for a response without content or one that repeats its instruction.

    An answer may open with the question; it is an echo only where it adds no more than two words.
    A response of other punctuation (`?`, `+`) or of symbols is content.
    """
    asked, said = _words(instruction), _words(_LEAD.sub("", response, count=1))
    if len(said) <= 1 and _is_placeholder(response):
        return Finding(NAME, "the response is empty", (0, len(response)))
    if _is_echo(asked, said):
        return Finding(NAME, "the response repeats the instruction", (0, len(response)))
    return None


def _is_placeholder(response: str) -> bool:
    visible = "".join(c for c in response if unicodedata.category(c) not in ("Cf", "Cc", "Zs"))
    return _PLACEHOLDER.fullmatch(visible) is not None


def _is_echo(asked: list[str], said: list[str]) -> bool:
    if len(asked) < ECHO_LEAD_WORDS or not said:
        return False
    rest = list(said)
    rounds = 0
    while rest[: len(asked)] == asked:
        rest = rest[len(asked) :]
        rounds += 1
    if rounds and (len(rest) <= ECHO_MAX_EXTRA_WORDS or rest == asked[: len(rest)]):
        return True
    # One word slipped in or left out of a long instruction is still the instruction.
    return len(asked) >= 8 and abs(len(said) - len(asked)) <= 1 and _one_edit_apart(asked, said)


def _one_edit_apart(left: list[str], right: list[str]) -> bool:
    short, long = sorted((left, right), key=len)
    if len(short) == len(long):
        return False
    return any(short == long[:index] + long[index + 1 :] for index in range(len(long)))


def _words(text: str) -> list[str]:
    lowered = unicodedata.normalize("NFKC", text).lower()
    return _TOKEN.findall(_UNSPACED.sub(lambda match: f" {match.group()} ", lowered))
