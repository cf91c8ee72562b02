"""The contamination guard: what an engine receives is the literal prompt, as token ids.

    GuardedEncoder    text -> ids of that text with the declared BOS policy in front, nothing else
    chat_format       how the tokenizer's own chat template would write a turn; read, never applied

Chat templates are rendered here for one purpose: to learn which tokens no prompt may hold.
Limits: a marker is known by being special to the tokenizer, by being written by its own chat
template, or by its published text (`core.models.markers`); a private format that is made of ordinary
words and that no template declares looks like ordinary text, and is ordinary text to the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import ContaminationError
from core.models.markers import MARKER, find_marker, is_turn_token
from core.models.raw import RawTokenizer, folded

_QUESTION = "qzxqQuestionqzxq"
_ANSWER = "qzxqAnswerqzxq"


@dataclass(frozen=True)
class ChatFormat:
    """One exchange as a chat template writes it, cut at the question and at the answer."""

    before: str
    between: str
    after: str

    @property
    def written(self) -> str:
        """All the text that the template adds by itself."""
        return self.before + self.between + self.after


def chat_format(tokenizer: Any) -> ChatFormat | None:
    """How the tokenizer's chat template writes question and answer, None without a usable one."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception:
        # Templates are code from the model's author; one that cannot write a plain exchange cannot
        # have written a prompt of ours either. The textual markers are still looked for.
        return None
    before, found, rest = text.partition(_QUESTION)
    between, answered, after = rest.partition(_ANSWER)
    return ChatFormat(before, between, after) if found and answered else None


def _is_marker(name: str) -> bool:
    """Whether a vocabulary entry is a chat marker, also one that no list calls special."""
    return name[:1] in "<[" and MARKER.fullmatch(name) is not None


class GuardedEncoder:
    """`PromptEncoder` over one tokenizer: checks every prompt that it encodes.

    Args:
        tokenizer: a transformers tokenizer.
        bos_id: id of the begin-of-text token that every prompt starts with; None for no such token.

    Raises:
        ContaminationError: `bos_id` is a chat format's token.
    """

    def __init__(self, tokenizer: Any, bos_id: int | None) -> None:
        self.tokenizer = tokenizer
        self.bos_id = bos_id
        self.chat = chat_format(tokenizer)
        self._raw = RawTokenizer(tokenizer)
        self._prefix = () if bos_id is None else (bos_id,)
        self._forbidden = self._control_tokens()
        self._forbidden_ids = frozenset(self._forbidden)
        self._unknown_id = self._harmless_unknown()
        if bos_id is not None and is_turn_token(self._raw.token(bos_id)):
            raise ContaminationError(
                f"the begin-of-text token {self._raw.token(bos_id)!r} (id {bos_id}) starts a chat "
                "turn, so a prompt that begins with it is a chat; load the model with bos `never`, "
                "and use a base model rather than its chat version",
                token=self._raw.token(bos_id),
                token_id=bos_id,
            )

    @property
    def control_tokens(self) -> dict[int, str]:
        """Id and text of every token that no prompt may hold."""
        return dict(self._forbidden)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of exactly this text with the declared BOS policy in front. See `PromptEncoder`."""
        return (*self._prefix, *self.encode_continuation(text))

    def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Ids of a text that continues a prompt: no BOS. See `PromptEncoder`."""
        ids = self._raw.encode(text)
        if not self._forbidden_ids.isdisjoint(ids):
            self._refuse_control_token(ids, self._prefix)
        found = find_marker(text)
        if found is not None:
            raise ContaminationError(
                f"the prompt holds the chat marker {found[1]!r} at character {found[0]}, written "
                "out as ordinary text; a base model is prompted with plain text, so take it out",
                token=found[1],
                character=found[0],
            )
        self._check_same_text(text, ids)
        return tuple(ids)

    def check_ids(self, ids: Sequence[int]) -> None:
        """Check ids that another tool made for this model: BOS policy, control tokens, markers.

        Raises:
            ContaminationError: a token that the literal text would not give; names it.
        """
        own = tuple(ids)
        if own[: len(self._prefix)] != self._prefix:
            raise ContaminationError(
                f"the prompt starts with id {own[0] if own else 'nothing'} instead of the declared "
                f"begin-of-text id {self.bos_id}",
                position=0,
            )
        body = own[len(self._prefix) :]
        if not self._forbidden_ids.isdisjoint(body):
            self._refuse_control_token(body, self._prefix)
        found = find_marker(self.decode(body))
        if found is not None:
            raise ContaminationError(
                f"the ids decode to the chat marker {found[1]!r} at character {found[0]}",
                token=found[1],
                character=found[0],
            )

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens left out, spaces kept as they are."""
        return self._raw.decode(ids)

    def _control_tokens(self) -> dict[int, str]:
        """Special tokens, turn tokens by name, and the added tokens that the chat template writes."""
        special = set(self.tokenizer.all_special_ids)
        written = self.chat.written if self.chat else ""
        found = {}
        for token_id, added in self.tokenizer.added_tokens_decoder.items():
            text = str(added)
            by_template = bool(text.strip()) and text in written
            if added.special or token_id in special or by_template or find_marker(text):
                found[token_id] = text
        named = {i: name for name, i in self.tokenizer.get_vocab().items() if _is_marker(name)}
        return named | found | {i: self._raw.token(i) for i in special if i is not None}

    def _harmless_unknown(self) -> int | None:
        """Id for characters that the vocabulary lacks, where it means nothing else; not forbidden."""
        token = self.tokenizer
        unknown = token.unk_token_id
        others = (token.bos_token_id, token.eos_token_id, token.pad_token_id)
        if unknown is None or unknown in others:
            return None
        self._forbidden_ids = self._forbidden_ids - {unknown}
        return int(unknown)

    def _refuse_control_token(self, body: Sequence[int], prefix: Sequence[int]) -> None:
        for position, token_id in enumerate(body):
            if token_id in self._forbidden_ids:
                token = self._forbidden[token_id]
                raise ContaminationError(
                    f"the prompt holds the control token {token!r} (id {token_id}) at position "
                    f"{position + len(prefix)}; a base model is prompted with plain text, so take "
                    "it out of the prompt",
                    token=token,
                    token_id=token_id,
                    position=position + len(prefix),
                )

    def _check_same_text(self, text: str, ids: Sequence[int]) -> None:
        """Raise unless the ids spell the text: a tokenizer's normaliser can add, cut or rewrite."""
        spelled = self._raw.decode(ids)
        if spelled == text or self._unknown_id in ids or folded(spelled) == folded(text):
            return
        at = next(
            (i for i, (a, b) in enumerate(zip(spelled, text, strict=False)) if a != b),
            min(len(spelled), len(text)),
        )
        raise ContaminationError(
            f"the tokenizer changes the prompt: from character {at} on it reads "
            f"{spelled[at : at + 40]!r} where the text says {text[at : at + 40]!r}; use the "
            "tokenizer files that belong to the base model",
            position=at,
        )
