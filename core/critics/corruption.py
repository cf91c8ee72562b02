"""Mechanical corruptions that a useful critic must tell from the originals (METHOD 5)."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.critics.base import CriticItem

MIN_WORDS = 4
_AUXILIARY = re.compile(r"\b(is|are|was|were|can|will|has|have|does|do)\b(?! not)")


@dataclass(frozen=True)
class LabelledItem:
    """An item and whether it is good; `corruption` names what was done to a bad one."""

    item: CriticItem
    good: bool
    corruption: str | None = None


Corruption = Callable[[CriticItem, CriticItem, random.Random], CriticItem | None]


def _rebuild(item: CriticItem, text: str) -> CriticItem:
    if item.response is None:
        return CriticItem(text)
    return CriticItem(item.instruction, text)


def _text(item: CriticItem) -> str:
    return item.instruction if item.response is None else item.response


def swap(item: CriticItem, other: CriticItem, _: random.Random) -> CriticItem | None:
    """The response of another instruction. Not for instructions alone."""
    if item.response is None or item.response == other.response:
        return None
    return CriticItem(item.instruction, other.response)


def cut_short(item: CriticItem, _: CriticItem, rng: random.Random) -> CriticItem | None:
    """The first 30 to 70 % of the words, without closing punctuation."""
    words = _text(item).split()
    if len(words) < MIN_WORDS:
        return None
    kept = words[: max(1, min(len(words) - 1, int(len(words) * rng.uniform(0.3, 0.7))))]
    return _rebuild(item, " ".join(kept).rstrip(".,;:!?"))


def shuffle_words(item: CriticItem, _: CriticItem, rng: random.Random) -> CriticItem | None:
    """The same words in another order."""
    words = _text(item).split()
    if len(set(words)) < MIN_WORDS:
        return None
    shuffled = words[:]
    while shuffled == words:
        rng.shuffle(shuffled)
    return _rebuild(item, " ".join(shuffled))


def negate(item: CriticItem, _: CriticItem, __: random.Random) -> CriticItem | None:
    """`not` after the first auxiliary verb of the response. Not for instructions alone."""
    if item.response is None:
        return None
    negated = _AUXILIARY.sub(r"\1 not", item.response, count=1)
    return CriticItem(item.instruction, negated) if negated != item.response else None


def splice(item: CriticItem, other: CriticItem, _: random.Random) -> CriticItem | None:
    """The first half of one instruction with the second half of another. Only for instructions."""
    first, second = item.instruction.split(), other.instruction.split()
    if item.response is not None or min(len(first), len(second)) < MIN_WORDS:
        return None
    return CriticItem(" ".join(first[: len(first) // 2] + second[len(second) // 2 :]))


CORRUPTIONS: dict[str, dict[str, Corruption]] = {
    "pair": {
        "swap": swap,
        "cut_short": cut_short,
        "shuffle_words": shuffle_words,
        "negate": negate,
    },
    "instruction": {"cut_short": cut_short, "shuffle_words": shuffle_words, "splice": splice},
}


def corrupt_half(items: Sequence[CriticItem], subject: str, seed: int) -> list[LabelledItem]:
    """Half of the items as they are, half corrupted, kinds taken in turn. Order and draw by seed."""
    rng = random.Random(seed)
    shuffled = list(items)
    rng.shuffle(shuffled)
    half = len(shuffled) // 2
    good = [LabelledItem(item, good=True) for item in shuffled[:half]]
    return good + _corrupted(shuffled[half:], list(CORRUPTIONS[subject].items()), rng)


def _corrupted(
    items: Sequence[CriticItem], kinds: list[tuple[str, Corruption]], rng: random.Random
) -> list[LabelledItem]:
    bad = []
    for position, item in enumerate(items):
        other = items[(position + 1 + rng.randrange(max(1, len(items) - 1))) % len(items)]
        # A kind that does not fit the item (too short to cut, nothing to negate) gives way to the next.
        for name, corrupt in kinds[position % len(kinds) :] + kinds[: position % len(kinds)]:
            if (changed := corrupt(item, other, rng)) is not None:
                bad.append(LabelledItem(changed, good=False, corruption=name))
                break
    return bad
