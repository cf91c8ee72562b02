"""Runaway: a response that begins another prompt, or that turns round in a loop.

Length is never a sign: a long answer and a long list are fine. What counts is another prompt's
marker, a list that starts over, the same sentence, line or phrase again and again, and the share of
repeated 4-grams. Text that repeats because it was asked to ("write it ten times") is flagged all
the same: the detector sees the text alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from core.qc.finding import Finding
from core.qc.markers import chat_token, new_turn, own_restart, without_fences

REPEAT_4GRAM_RATIO = 0.5
MIN_4GRAMS = 12
MIN_UNIT_REPEATS = 3
MIN_LOOP_SHARE = 0.4
MAX_PHRASE_WORDS = 24

_TOKEN = re.compile(r"\w+(?:['’]\w+)?")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_LIST_ITEM = re.compile(r"^(?P<indent>[ \t]*)(?P<number>\d{1,3})[.)][ \t]+\S", re.MULTILINE)
_LIST_MARK = re.compile(r"^[ \t]*(?:[-*•+]|\d{1,3}[.)]|[a-z]\))[ \t]+")
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]*")
_LETTER_LOOP = re.compile(r"([^\W\d_]{2,12}?)\1{9,}")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def detect_runaway(text: str, *, repeat_4gram_ratio: float = REPEAT_4GRAM_RATIO) -> Finding | None:
    """Finding for a text that starts a new prompt or degenerates into repetition.

    Args:
        repeat_4gram_ratio: share of word 4-grams that occurred before in the text from which on it
            counts as a loop (0.5; a song with a refrain stays below 0.4).
    """
    return (
        _marker(text)
        or _numbered_restart(text)
        or _unit_loop(text)
        or _letter_loop(text)
        or _word_loop(text, repeat_4gram_ratio)
    )


def _marker(text: str) -> Finding | None:
    plain = without_fences(text)
    match = chat_token(text) or own_restart(plain) or new_turn(plain)
    if match is None:
        return None
    why = f"starts a new prompt with {match.group().strip()[:40]!r}"
    return Finding("runaway", why, match.span())


def _numbered_restart(text: str) -> Finding | None:
    """A numbered list that begins again right after an item, or goes on after an answer."""
    items = list(_LIST_ITEM.finditer(text))
    if not items:
        return None
    first = items[0]
    before = text[: first.start()].strip()
    if int(first["number"]) > 1 and len(items) > 1 and before and not before.endswith((":", "：")):
        return Finding("runaway", f"goes on with list item {first['number']}", first.span())
    last_number: dict[str, tuple[int, int]] = {}
    for item in items:
        indent, number = item["indent"], int(item["number"])
        previous, end = last_number.get(indent, (0, -1))
        gap = text[end : item.start()].strip("\n") if end >= 0 else "x"
        only_this_item = "\n" not in gap.rstrip()
        if number == 1 and previous >= 2 and only_this_item:
            return Finding("runaway", f"its list starts over after item {previous}", item.span())
        last_number[indent] = (number, item.end())
        for deeper in [key for key in last_number if len(key) > len(indent)]:
            del last_number[deeper]
    return None


def _unit_loop(text: str) -> Finding | None:
    """The same line or sentence at least three times, making up a good part of the text."""
    lines = [_LIST_MARK.sub("", line) for line in text.splitlines()]
    found = _looping(lines, "line")
    if found is None:
        found = _looping(_SENTENCE.findall(" ".join(lines)), "sentence")
    if found is None:
        return None
    unit, why = found
    last = max(text.rfind(unit), 0)
    return Finding("runaway", why, (last, min(len(text), last + len(unit))))


def _looping(units: Sequence[str], kind: str) -> tuple[str, str] | None:
    normal = [" ".join(unit.lower().split()).strip(" .!?。！？") for unit in units]
    long_enough = [unit for unit in normal if _weight(unit) >= 3]
    if not long_enough:
        return None
    counts = Counter(long_enough)
    most, times = counts.most_common(1)[0]
    repeated = sum(count for count in counts.values() if count >= MIN_UNIT_REPEATS)
    in_a_row = _longest_run(normal, most)
    if times < MIN_UNIT_REPEATS:
        return None
    if in_a_row >= MIN_UNIT_REPEATS or repeated / len(long_enough) >= _needed_share(times):
        original = units[normal.index(most)].strip()
        return original, f"the same {kind} {times} times: {original[:60]!r}"
    return None


def _needed_share(times: int) -> float:
    """A refrain comes back three times; a text that is mostly one unit is a loop."""
    return 0.6 if times == MIN_UNIT_REPEATS else MIN_LOOP_SHARE


def _weight(unit: str) -> int:
    """Words, where a few CJK characters count as a word."""
    return max(len(_WORD.findall(unit)), len(_CJK.findall(unit)) // 2)


def _longest_run(units: Sequence[str], wanted: str) -> int:
    longest = run = 0
    for unit in units:
        if not unit:
            continue
        run = run + 1 if unit == wanted else 0
        longest = max(longest, run)
    return longest


def _letter_loop(text: str) -> Finding | None:
    if max(map(len, text.split()), default=0) < 20:
        return None
    loop = _LETTER_LOOP.search(text)
    if loop and len(set(loop.group(1))) > 1:
        return Finding("runaway", f"{loop.group(1)!r} over and over", loop.span())
    return None


def _word_loop(text: str, repeat_4gram_ratio: float) -> Finding | None:
    matches = list(_TOKEN.finditer(text))
    words = [match.group().lower() for match in matches]
    grams = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    if len(set(grams)) == len(grams):
        # Every loop of words repeats a 4-gram, so most texts end here.
        return None
    return _phrase_loop(matches, words) or _repeated_4grams(text, grams, repeat_4gram_ratio)


def _phrase_loop(matches: Sequence[re.Match[str]], words: Sequence[str]) -> Finding | None:
    """A phrase said over and over: a word 6 times, 2 to 7 words 4 times, up to 24 words 3 times."""
    for size in range(1, MAX_PHRASE_WORDS + 1):
        times = 6 if size == 1 else 4 if size < 8 else 3
        start = _run_of_period(words, size, size * (times - 1))
        if start is not None:
            phrase = " ".join(words[start : start + size])
            span = (matches[start].start(), matches[start + size - 1].end())
            return Finding("runaway", f"the same words over and over: {phrase[:60]!r}", span)
    return None


def _run_of_period(words: Sequence[str], size: int, wanted: int) -> int | None:
    """Start of a stretch in which `wanted` words in a row equal the word `size` places before."""
    run = 0
    for index in range(size, len(words)):
        run = run + 1 if words[index] == words[index - size] else 0
        start = index - wanted - size + 1
        # A matrix of zeros repeats too: only words can run away.
        if run >= wanted and any(word.isalpha() for word in words[start : start + size]):
            return start
    return None


def _repeated_4grams(text: str, grams: Sequence[tuple[str, ...]], limit: float) -> Finding | None:
    # Tables and matrices repeat their numbers; only 4-grams that are mostly words count.
    wordy = [gram for gram in grams if sum(word.isalpha() for word in gram) >= 2]
    total = len(wordy)
    if total < MIN_4GRAMS:
        return None
    ratio = 1 - len(set(wordy)) / total
    if ratio < limit:
        return None
    why = f"{ratio:.0%} of its {total} word 4-grams repeat earlier ones (limit {limit:.0%})"
    return Finding("runaway", why, (0, len(text)))
