"""A tokenizer stripped to its core: text to ids and back, with nothing added, cut or tidied."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any


class RawTokenizer:
    """A tokenizer's own text pieces: no template, no added tokens, no truncation, no padding."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._backend = getattr(tokenizer, "backend_tokenizer", None)

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone."""
        if self._backend is None:
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
            return ids
        # A call elsewhere may have left limits on the shared object; they would cut prompts silently.
        if self._backend.truncation is not None:
            self._backend.no_truncation()
        if self._backend.padding is not None:
            self._backend.no_padding()
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids without special tokens and without any tidying."""
        if self._backend is None:
            return str(
                self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
            )
        return str(self._backend.decode(list(ids), skip_special_tokens=True))

    def token(self, token_id: int) -> str:
        """The vocabulary's name of an id."""
        return str(self.tokenizer.convert_ids_to_tokens(token_id))


def folded(text: str) -> str:
    """The text without what honest normalisers change: compatibility forms and white space."""
    return "".join(unicodedata.normalize("NFKC", text).split())
