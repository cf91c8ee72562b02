"""Generated texts that seem to speak to the reviewer instead of answering their instruction.

A tripwire, not a wall: what protects a gate is the machine checks, the fence around samples and the second
look without them. It knows the usual English wordings; other languages, look-alike letters and hints that
are spread over several sentences go past it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

EXCERPT_CHARACTERS = 160
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")

_OURS = (
    r"(?:pilot|gate|data ?set|batch|stage|adapter|iteration|checkpoint|pipeline|training data|"
    r"(?:pilot |pipeline )?run)s?"
)
_JUDGE = r"(?:reviewers?|approvers?|gatekeepers?|evaluators?|graders?|reviewing model|llm judge)"
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        # Set aside what you were told.
        r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,30}"
        r"\b(?:previous|prior|above|earlier|preceding|all|your|system)\b.{0,30}"
        r"\b(?:instructions?|rubrics?|prompts?|guidelines|rules|machine checks)\b",
        r"\b(?:reveal|repeat|print|ignore|override)\b.{0,20}\bsystem (?:prompt|message)\b",
        # A verdict, ready-made.
        r"[\"'“]decision[\"'”]\s*:\s*[\"'“]",
        r"\b(?:decision|verdict)\s*[:=]\s*[\"'“]?(?:go|no_go|approved?)[\"'”]?\s*(?:[.,;}!]|$)",
        r"\b(?:reply|respond|answer|output|return|vote)\b.{0,25}[\"'“](?:go|approved?)[\"'”]",
        # Fence markers, and turns of chat formats that a reviewer's own server might obey.
        r"<<<\s*(?:data|end)\b|\b(?:data|end) [0-9a-f]{8,}\s*>>>",
        r"<\|im_(?:start|end)\|>|<\|start_header_id\|>|\[/?inst\]|<</?sys>>",
        # Speaking to whoever judges.
        rf"\b(?:dear|hey|hello|attention|(?:note|message) (?:to|for))\s+(?:the\s+)?{_JUDGE}\b\s*[:,!.]",
        rf"\bas (?:the|an?) {_JUDGE},? you\b|\byou are (?:now )?the {_JUDGE}\b",
        rf"^{_JUDGE}\s*[:,]|\b{_JUDGE}\s*[:,]\s*(?:please|you|approve|accept|mark|pass|ignore|say|answer|output)\b",
        # Asking for the gate.
        rf"\b(?:approve|accept|pass|green-?light|sign off on)\s+(?:this|the|these|our)\s+{_OURS}\b",
        r"\bopen (?:this|our) gate\b",
        r"\b(?:please|must|should|just|simply)\s+approve\s+(?:this|it|everything|all)\b\s*(?:[.,;!]|now|$)",
        rf"\b{_OURS}\s+(?:must|should|has to|is to|can safely) be (?:approved|accepted|passed)\b",
        r"(?:^|[.!]\s)approve this\b\s*(?:[.,;!:]|now|$)",
    )
)


def suspicious(texts: Iterable[str]) -> list[str]:
    """Excerpts, a line each, of the texts that seem to address the reviewer; in order, without repeats."""
    found = (excerpt for text in texts if (excerpt := _excerpt(text)))
    return list(dict.fromkeys(found))


def _excerpt(text: str) -> str | None:
    """What is around the first hit; None where there is none."""
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    plain = " ".join(plain.split())
    hits = [match for pattern in _PATTERNS if (match := pattern.search(plain.casefold()))]
    if not hits:
        return None
    # Folding can change lengths (ß), so the place is near enough, not exact.
    start = max(0, min(match.start() for match in hits) - 20)
    cut = plain[start : start + EXCERPT_CHARACTERS]
    return f"{'…' if start else ''}{cut}{'…' if start + len(cut) < len(plain) else ''}"
