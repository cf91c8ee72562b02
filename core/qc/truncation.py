"""Truncation: a text that stops before its end, told from how it ends and never from its length.

Signs, each explained in its finding: a code fence, bracket or quote opened in the last paragraph
and never closed; a list marker without an item; an end on `:` `,` `;` or a dash; an end on a word
that needs another one ("the", "and"); prose that closed its other sentences and leaves the last one
open; a last item that lacks the full stop of all items before it.

Not covered: a cut that falls exactly on a sentence end, and a single open sentence that happens to
read as complete (a list without full stops, a line of verse and a title all look like that).
"""

from __future__ import annotations

import re

from core.qc.brackets import unclosed
from core.qc.finding import Finding

NAME = "truncation"
OPEN_SENTENCE_WORDS = 4
LONE_SENTENCE_WORDS = 24
COMMAS_OF_A_LIST_RATIO = 0.2


def _word_set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words that English cannot end a statement on, whatever the sentence.
_NEEDS_MORE = _word_set(
    """
    the a an of and or but because than their your my our whose every into onto nor although
    though whereas while whether unless until upon between among via per such
    """
)
# Words that can end a question, a title or a phrasal verb, but not running prose.
_SELDOM_LAST = _word_set(
    """
    to with for from in on at by is are was were that which as its if when who where be been
    being has have had can could will would should may might must not this these those about
    after before during through under over against without within so very more most each some
    """
)
_ENGLISH = _word_set(
    """
    the of and to in is are it that for with as was on be by this from you have
    """
)
_NOT_WORDS = re.compile(r"[bcdfghjklmnpqrstvwxz]{2,4}")
_ABBREVIATIONS = _word_set(
    """
    km cm mm nm kg mg ml dl cl ft hr hrs pm mph kph kmh tbsp tsp lbs lb pts vs hz khz mhz ghz db
    kb mb gb tb pdf html xml css npm ssh http https ftp gps tv dvd cd pc dr mr mrs ms st jr sr
    ph sql php txt csv jpg png svg gcd lcm sqrt ln bc pp nth hmm shh psst brr rd nd th rpm bpm
    fps mpg sms wwf
    """
)
_TERMINAL = re.compile(r"[.!?…。！？।؟︒][\"'”’»“)\]*_`」』]*$")
_SENTENCE_END = re.compile(r"(?<![A-Z])[.!?][\"'”’»)\]]*(?=\s+[\"'“„«(]?[A-Z0-9ÄÖÜÉ])")
_LOOSE_DOT = re.compile(r"\b(?:e\.g|i\.e|etc|cf|vs|Dr|Mr|Mrs|Ms|Prof|St|No|Fig|Inc|Ltd|Jr|Sr|ca|z\.B)\.$")
_LIST_LINE = re.compile(r"^[ \t]*(?:[-*•+]|\(?\d{1,3}[.)]|\(?[a-zA-Z]\))[ \t]+(?P<body>\S.*)$")
_BARE_BULLET = re.compile(r"^[ \t]*[-*•+]$")
_BARE_NUMBER = re.compile(r"^[ \t]*\(?(?P<number>\d{1,3})[.)]$")
_RULE_OR_MORSE = re.compile(r"[-.·\s_=*|:/]+")
_GRADE = re.compile(r"(?:^|[\s(])(?:[A-F]|AB|O|sp\d?|[A-Z][a-z]?\d?)[-–−]$")
_CLOSING = re.compile(
    r"^(?:(?:yours|very|best|kind|warm|many|with|all|my|much)\s+){0,3}"
    r"(?:sincerely|faithfully|truly|regards|wishes|love|thanks|cheers|respectfully|best|yours|"
    r"cordially|hugs|xoxo)\b[\w ]{0,20},$",
    re.IGNORECASE,
)
_CODE_LINE = re.compile(r"[{};=<>]|\w\(|^\s{4,}|^[#@$>]|://")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def detect_truncation(text: str) -> Finding | None:
    """Finding for a text that was cut off; None for one that may well be complete."""
    stripped = text.rstrip()
    if not stripped:
        return None
    lines = stripped.splitlines()
    last = lines[-1]
    open_thing = unclosed(stripped)
    if open_thing is not None:
        start, what = open_thing
        return Finding(NAME, f"{what} is never closed", (start, len(stripped)))
    why = _dangling_item(lines) or _open_end(last, lines) or _open_prose(lines)
    if why is None:
        return None
    return Finding(NAME, why, (len(stripped) - len(last), len(stripped)))


def _dangling_item(lines: list[str]) -> str | None:
    if len(lines) < 2:
        return None
    last = lines[-1]
    if _BARE_BULLET.match(last) and any(_LIST_LINE.match(line) for line in lines[:-1]):
        return "a list marker without an item"
    bare = _BARE_NUMBER.match(last)
    if bare is None:
        return None
    before = str(int(bare["number"]) - 1)
    counted = any(re.match(rf"\s*\(?{before}[.)]\s", line) for line in lines[:-1])
    return f"list item {bare['number']} is empty" if counted else None


def _open_end(last: str, lines: list[str]) -> str | None:
    end = last[-1]
    if _RULE_OR_MORSE.fullmatch(last):
        return None
    if end in ":,;，：；、":
        code = end == ";" and _CODE_LINE.search(last[:-1])
        emoticon = re.search(r"(?:^|\s)[(\[D][-']?[:;]$", last)
        if code or emoticon or (end == "," and _CLOSING.match(last.strip())):
            return None
        return f"ends on {end!r}"
    if end in "-–—−" and not _GRADE.search(last) and not last.endswith("--"):
        return f"ends on {end!r}"
    if re.search(r"\S\s+(?:[=+*/&<>]|\|\||&&)$", last):
        return f"ends on the operator {end!r}"
    return None


def _open_prose(lines: list[str]) -> str | None:
    """Signs that need words: the last line as a list item, or as running prose."""
    last = lines[-1].strip()
    if _TERMINAL.search(last) and not _LOOSE_DOT.search(last):
        return None
    item = _LIST_LINE.match(last)
    body = item["body"] if item else last
    words = _WORD.findall(body)
    if not words or not last.endswith(words[-1]):
        return None
    why = _last_word(words, body, lines)
    if why is not None:
        return why
    if item:
        return _unlike_items_before(lines, words)
    return _unfinished_sentence(body, words, len(lines))


def _last_word(words: list[str], body: str, lines: list[str]) -> str | None:
    word = words[-1]
    if not word.islower() or _CODE_LINE.search(body) or not _is_english(" ".join(lines)):
        return None
    fragment = _WORD.findall(_last_sentence(body))
    if word in _NEEDS_MORE and len(words) >= 3:
        return f"ends on {word!r}"
    prose = bool(_SENTENCE_END.search(body)) or len(fragment) >= 10
    if word in _SELDOM_LAST and prose and len(fragment) >= 3 and not _asks(fragment):
        return f"ends on {word!r}"
    stump = _NOT_WORDS.fullmatch(word) and word not in _ABBREVIATIONS
    after_number = re.search(r"\d\s*" + re.escape(word) + "$", body)
    if stump and len(words) >= 4 and not after_number:
        return f"ends inside a word ({word!r})"
    return None


def _asks(words: list[str]) -> bool:
    return words[0].lower() in {"what", "who", "where", "which", "how", "whom"}


def _is_english(text: str) -> bool:
    return any(word in _ENGLISH for word in text.lower().split())


def _last_sentence(body: str) -> str:
    start = 0
    for match in _SENTENCE_END.finditer(body):
        if not _LOOSE_DOT.search(body[: match.end()]):
            start = match.end()
    return body[start:].strip()


def _unlike_items_before(lines: list[str], words: list[str]) -> str | None:
    items = [match["body"] for line in lines[:-1] if (match := _LIST_LINE.match(line))]
    closed = [item for item in items if _TERMINAL.search(item.rstrip())]
    if len(words) >= 3 and len(items) >= 2 and len(closed) == len(items):
        return "the last list item has no full stop, all before it do"
    return None


def _unfinished_sentence(body: str, words: list[str], line_count: int) -> str | None:
    if _CODE_LINE.search(body) or re.match(r"^(?:[-–—#|]|\S+@\S+)", body):
        return None
    fragment = _last_sentence(body)
    open_words = _WORD.findall(fragment)
    many_commas = fragment.count(",") >= COMMAS_OF_A_LIST_RATIO * max(len(open_words), 1)
    if fragment != body and len(open_words) >= OPEN_SENTENCE_WORDS and not many_commas:
        return f"its last sentence of {len(open_words)} words is left open"
    lone = line_count == 1 and len(open_words) >= LONE_SENTENCE_WORDS and not many_commas
    if lone and body[:1].isupper():
        return f"its only sentence, {len(open_words)} words long, is left open"
    return None
