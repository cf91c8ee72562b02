"""Format markers in a text: this project's own prompt labels, other turn labels, chat tokens.

Two detectors read them. Delimiter leakage asks "would this marker break the training format?" and
so flags `Response:` at any line start. Runaway asks "did the model begin another prompt?" and so
looks for something before the marker. Text that is itself a dialogue or an FAQ begins with its
first turn, or announces it with a colon; that is content, and neither detector flags it.

Recall over precision in one case on purpose: a lone `Response:` line in a lab protocol counts as
leakage, because in training data it would read as our own delimiter.
"""

from __future__ import annotations

import re

from core.qc.finding import Finding

_CHAT_TOKEN = re.compile(
    r"<\|[a-z_]{2,24}\|>"  # ChatML, Llama 3, Phi, Zephyr
    r"|</?(?:start|end)_of_turn>"  # Gemma
    r"|\[/?INST\]|<</?SYS>>"  # Llama 2, Mistral
    r"|<(?:bos|eos|pad|unk)>|\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS)\]"
    r"|(?<!\S)</s>(?!\S)"
)
_HEADER = re.compile(
    r"(?<!#)#{2,6}[ \t]{0,8}(?:Instruction|Response|Input|Human|User|Assistant)[ \t]*(?::|$)",
    re.MULTILINE,
)
_PREFIX = r"^[ \t]*(?:>[ \t]*)?(?:[*_#]{1,4}[ \t]*)?"
_OWN_LABEL = re.compile(
    _PREFIX + r"(?P<label>Instruction|INSTRUCTION|Response|RESPONSE)[ \t]?:", re.MULTILINE
)
_OWN_INLINE = re.compile(r"(?<=[.!?])[ \t]+(?P<label>Instruction|INSTRUCTION)[ \t]?:(?=[ \t]*[A-Z])")
_TURN_LABEL = re.compile(
    _PREFIX + r"(?P<label>Q|Question|User|Human|USER|HUMAN|Assistant|ASSISTANT)[ \t]?:(?=\s|\*|$)",
    re.MULTILINE,
)
_QA_INLINE = re.compile(r"(?<=[.!?])[ \t]+(?P<label>Q:)[^\n]{0,300}?\sA:")
_KEY_VALUE = re.compile(r"^[ \t]*[\w][\w \-]{0,30}:[ \t]*\S")
_FENCE = re.compile(r"^[ \t]*```[^\n]*\n.*?^[ \t]*```", re.MULTILINE | re.DOTALL)


def chat_token(text: str) -> re.Match[str] | None:
    """First control token of a chat format, or a `### Instruction` style header."""
    # Plain containment first: this runs over every candidate, and most have no such character.
    token = _CHAT_TOKEN.search(text) if "<" in text or "[" in text else None
    return token or (_HEADER.search(text) if "##" in text else None)


def without_fences(text: str) -> str:
    """The text with closed code fences blanked out; positions stay as they are."""
    if "```" not in text:
        return text
    return _FENCE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def new_turn(text: str) -> re.Match[str] | None:
    """First turn label (`Q:`, `User:`, ...) that follows an answer, not one that is the answer."""
    if ":" not in text:
        return None
    first = _TURN_LABEL.search(text)
    if first and not _is_dialogue(text, first.start()):
        return first
    inline = _QA_INLINE.search(text)
    return inline if inline and not _is_dialogue(text, inline.start()) else None


def own_restart(text: str) -> re.Match[str] | None:
    """First own label that begins another prompt; `Response:` amid `Key: value` lines does not."""
    if ":" not in text:
        return None
    for match in _OWN_LABEL.finditer(text):
        if match["label"].lower() == "instruction" or not _in_record(text, match.start()):
            return match
    return _OWN_INLINE.search(text)


def detect_delimiter_leakage(text: str) -> Finding | None:
    """Finding for a format marker that must not stand in training data; None for a clean text."""
    plain = without_fences(text)
    match = chat_token(text) or _leaked_label(plain) or new_turn(plain)
    if match is None:
        return None
    return Finding("delimiter_leakage", f"format marker {match.group().strip()[:40]!r}", match.span())


def _leaked_label(text: str) -> re.Match[str] | None:
    if ":" not in text:
        return None
    for match in _OWN_LABEL.finditer(text):
        followed = text[match.end() : match.end() + 4].strip()
        # `Instruction: 5` among other scores is a filled-in form, not a prompt.
        if not (followed[:1].isdigit() and _in_record(text, match.start())):
            return match
    return _OWN_INLINE.search(text)


def _is_dialogue(text: str, start: int) -> bool:
    before = text[:start].strip()
    return not before or before.endswith(":") or bool(_starts_with_turn(before))


def _starts_with_turn(before: str) -> bool:
    return _TURN_LABEL.match(before) is not None


def _in_record(text: str, start: int) -> bool:
    """Whether the line before is another `Key: value` line."""
    before = text[:start].rstrip()
    if not before:
        return False
    line = before[before.rfind("\n") + 1 :]
    return bool(_KEY_VALUE.match(line)) and not _OWN_LABEL.match(line)
