"""Whether a tokenizer leaves texts alone, and whether it belongs to its model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.errors import ContaminationError, ModelLoadError
from core.models.guard import GuardedEncoder
from core.models.markers import is_turn_token
from core.models.raw import RawTokenizer


def check_tokenizer(tokenizer: Any, texts: Iterable[str]) -> list[str]:
    """Everything that the tokenizer does to plain texts beyond splitting them, in sentences.

    Looked at: what it emits by itself against the ids of the literal text (one BOS in front is
    allowed), cutting and padding that its file switches on, and control tokens it makes of plain text.
    """
    found = standing_orders(tokenizer)
    raw = RawTokenizer(tokenizer)
    bare = GuardedEncoder(tokenizer, None)
    bos = tokenizer.bos_token_id
    for text in texts:
        problem = _added(tokenizer, raw, text, bos)
        if problem is None:
            try:
                bare.encode(text)
            except ContaminationError as error:
                problem = f"for the plain text {text[:30]!r}: {error}"
        if problem is not None and problem not in found:
            found.append(problem)
    return found


def check_tokenizer_file(path: Path, bos_token: str | None, texts: Iterable[str]) -> list[str]:
    """The same about a tokenizer.json as it stands, for the programs that read the file itself.

    transformers rebuilds the tokenizers of some families and ignores parts of their file; the next
    program may not.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if not path.is_file():
        return []
    known = {} if bos_token is None else {"bos_token": bos_token}
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(path)), **known)
    return check_tokenizer(made, texts)


def standing_orders(tokenizer: Any) -> list[str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    found = []
    if backend is not None and backend.truncation is not None:
        limit = backend.truncation.get("max_length")
        found.append(f"the tokenizer file cuts every text at {limit} tokens")
    if backend is not None and backend.padding is not None:
        found.append(f"the tokenizer file pads texts with {backend.padding.get('pad_token')!r}")
    return found


def _added(tokenizer: Any, raw: RawTokenizer, text: str, bos: int | None) -> str | None:
    """What the tokenizer puts around a text when it is called in the ordinary way, or None."""
    emitted = list(tokenizer(text)["input_ids"])
    plain = raw.encode(text)
    if emitted == plain or (bos is not None and emitted == [bos, *plain]):
        if bos is not None and len(emitted) > len(plain) and is_turn_token(raw.token(bos)):
            return f"the tokenizer opens every text with the chat token {raw.token(bos)!r}"
        return None
    return _describe_added(raw, emitted, plain)


def _describe_added(raw: RawTokenizer, emitted: list[int], plain: list[int]) -> str:
    names = [raw.token(i) for i in emitted]
    for begin in range(len(emitted) - len(plain) + 1):
        if emitted[begin : begin + len(plain)] == plain:
            before, after = names[:begin], names[begin + len(plain) :]
            parts = [
                f"{words} {len(tokens)} token{'s' if len(tokens) > 1 else ''} "
                f"({', '.join(map(repr, tokens[:6]))}{', ...' if len(tokens) > 6 else ''})"
                for words, tokens in (("puts in front of every text", before), ("appends", after))
                if tokens
            ]
            return "the tokenizer " + " and ".join(parts)
    return (
        f"the tokenizer emits {len(emitted)} ids for a text of {len(plain)} and they do not contain "
        f"the text's own; it starts with {', '.join(map(repr, names[:6]))}"
    )


def require_ids_in(tokenizer: Any, embedding_rows: int) -> None:
    """Raise ModelLoadError when tokenizer and model cannot belong together.

    Too many tokens is certain. Too few is judged at 85 %: real models pad their embedding by up to
    3 % (DeepSeek 7B: 100,015 of 102,400; Phi-2: 50,295 of 51,200), foreign tokenizers fall short more.
    """
    vocabulary = tokenizer.get_vocab()
    highest = max(vocabulary.values(), default=-1)
    advice = "the tokenizer files belong to another model; take tokenizer and weights from the same place"
    if highest >= embedding_rows:
        raise ModelLoadError(
            f"the tokenizer makes ids up to {highest:,} but the model knows {embedding_rows:,} "
            f"tokens: {advice}",
            highest_id=highest,
            embedding_rows=embedding_rows,
        )
    if len(vocabulary) < 0.85 * embedding_rows:
        raise ModelLoadError(
            f"the tokenizer has {len(vocabulary):,} tokens for the model's {embedding_rows:,}: {advice}",
            tokens=len(vocabulary),
            embedding_rows=embedding_rows,
        )
