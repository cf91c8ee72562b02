"""Online de-duplication: normalise, exact, then MinHash with the Jaccard similarity checked exactly.

MinHash (datasketch) finds candidate neighbours; the verdict rests on the exact Jaccard similarity of
word shingles, so a hash collision never throws a text away. What was seen first stays.
Reserved texts (seeds, held-out items) are in the pool from the start under their own kind.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from datasketch import MinHash, MinHashLSH

KIND_POOL = "pool"
_WORD = re.compile(r"\w+")


def normalise(text: str) -> str:
    """Lower-case words of a text, without punctuation and accents' encoding variants."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def shingles(normalised: str, words: int) -> frozenset[str]:
    """Word n-grams of a normalised text; a text shorter than n is one shingle."""
    tokens = normalised.split()
    if len(tokens) <= words:
        return frozenset([normalised])
    return frozenset(" ".join(tokens[i : i + words]) for i in range(len(tokens) - words + 1))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over size of the union."""
    return len(a & b) / len(a | b)


@dataclass(frozen=True)
class Duplicate:
    """Why a text is a duplicate: of what, how near, and where that text came from."""

    kind: str
    neighbour_id: str
    similarity: float

    @property
    def reason(self) -> str:
        """`duplicate_exact`, `duplicate_near`, or `duplicate_<seed|heldout>`."""
        if self.kind != KIND_POOL:
            return f"duplicate_{self.kind}"
        return "duplicate_exact" if self.similarity == 1.0 else "duplicate_near"


class DedupPool:
    """Texts seen so far.

    Args:
        jaccard_ratio: similarity from which two texts are near-duplicates.
        shingle_words: words per shingle.
        permutations: MinHash permutations; more find neighbours more surely and cost more.
        reserved: (id, text, kind) that nothing may repeat.
    """

    def __init__(
        self,
        jaccard_ratio: float,
        shingle_words: int,
        permutations: int,
        reserved: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        self.jaccard_ratio = jaccard_ratio
        self.shingle_words = shingle_words
        self.permutations = permutations
        # Aim the index a little below the limit: a missed neighbour is lost, a spurious one is checked.
        self._index = MinHashLSH(threshold=max(0.1, jaccard_ratio - 0.1), num_perm=permutations)
        self._exact: dict[str, tuple[str, str]] = {}
        self._texts: dict[str, tuple[str, str]] = {}
        for text_id, text, kind in reserved:
            self.add(text_id, text, kind)

    def __len__(self) -> int:
        return len(self._texts)

    def find(self, text: str) -> Duplicate | None:
        """The nearest text of the pool if it is near enough, else None."""
        return self._find(normalise(text))[0]

    def add(self, text_id: str, text: str, kind: str = KIND_POOL) -> Duplicate | None:
        """Add a text unless it is a duplicate, which is then returned."""
        normalised = normalise(text)
        duplicate, sketch = self._find(normalised)
        if duplicate is None and sketch is not None:
            self._index.insert(text_id, sketch, check_duplication=False)
            self._texts[text_id] = (normalised, kind)
            self._exact[normalised] = (text_id, kind)
        return duplicate

    def _find(self, normalised: str) -> tuple[Duplicate | None, MinHash | None]:
        if same := self._exact.get(normalised):
            return Duplicate(same[1], same[0], 1.0), None
        own = shingles(normalised, self.shingle_words)
        sketch = MinHash(num_perm=self.permutations)
        sketch.update_batch([shingle.encode() for shingle in own])
        best: Duplicate | None = None
        for neighbour in sorted(self._index.query(sketch)):
            text, kind = self._texts[neighbour]
            similarity = jaccard(own, shingles(text, self.shingle_words))
            if similarity >= self.jaccard_ratio and (best is None or similarity > best.similarity):
                best = Duplicate(kind, neighbour, min(similarity, 0.999999))
        return best, sketch
