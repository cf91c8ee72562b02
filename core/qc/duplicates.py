"""Duplicates among the instructions of kept rows: the same text, and nearly the same text.

Near means a Jaccard index of word 3-shingles of at least the limit (0.7). MinHash only proposes
neighbours; each is checked on the shingles themselves, so no verdict rests on a hash's luck. An
instruction of fewer than three words is one shingle: it is near only to itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

SHINGLE_WORDS = 3
MINHASH_PERMUTATIONS = 64
# The index proposes from a lower similarity on, so that hashing misses few true neighbours.
PROPOSAL_JACCARD_RATIO = 0.5
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w+(?:['’]\w+)?")

Shingles = frozenset[tuple[str, ...]]


@dataclass(frozen=True)
class Duplicates:
    """Position of each duplicate in the given texts, with the position of the text it repeats.

    `near` also has the Jaccard index. A text is a duplicate of an *earlier* one, so the first of a
    kind is never listed and a count is the number of texts that could go.
    """

    exact: dict[int, int]
    near: dict[int, tuple[int, float]]


def find_duplicates(texts: Sequence[str], *, near_jaccard_ratio: float = 0.7) -> Duplicates:
    """Exact duplicates (case, width, spaces, punctuation aside) and near ones among the others."""
    first: dict[tuple[str, ...], int] = {}
    exact: dict[int, int] = {}
    for index, text in enumerate(texts):
        words = _words(text)
        if words in first:
            exact[index] = first[words]
        else:
            first[words] = index
    return Duplicates(exact, _near(first, near_jaccard_ratio))


def _words(text: str) -> tuple[str, ...]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Text of symbols alone is compared as it stands, or all of it would be the same.
    return tuple(_TOKEN.findall(folded)) or (folded.strip(),)


def _shingles(words: tuple[str, ...]) -> Shingles:
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    return frozenset(words[start : start + SHINGLE_WORDS] for start in range(last))


def _near(first: dict[tuple[str, ...], int], near_jaccard_ratio: float) -> dict[int, tuple[int, float]]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(
        threshold=min(PROPOSAL_JACCARD_RATIO, near_jaccard_ratio), num_perm=MINHASH_PERMUTATIONS
    )
    shingles = {position: _shingles(words) for words, position in first.items()}
    encoded = (
        [" ".join(shingle).encode("utf-8", "surrogatepass") for shingle in texts]
        for texts in shingles.values()
    )
    hashes = MinHash.generator(encoded, num_perm=MINHASH_PERMUTATIONS)
    near: dict[int, tuple[int, float]] = {}
    for (position, own), minhash in zip(shingles.items(), hashes, strict=True):
        proposed = [(_jaccard(own, shingles[other]), -other) for other in index.query(minhash)]
        best, negative = max(proposed, default=(0.0, 0))
        if best >= near_jaccard_ratio:
            near[position] = (-negative, best)
        else:
            # Only the first of a kind is indexed: a thousand variants of one text stay linear.
            index.insert(position, minhash, check_duplication=False)
    return near


def _jaccard(left: Shingles, right: Shingles) -> float:
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)
