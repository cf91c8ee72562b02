"""Chat formats as token ids, for asking a model whether it was tuned on one.

These ids are scored by the sentinels and never completed into anything that is kept; the encoder that
prompts go through refuses them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.models.guard import GuardedEncoder
from core.models.markers import is_turn_token
from core.models.raw import RawTokenizer

# (name, text before the question, text between question and answer), as published by each family.
_FORMATS = (
    ("ChatML", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    ("Gemma", "<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"),
    (
        "Llama 3",
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    ("Phi", "<|user|>\n", "<|end|>\n<|assistant|>\n"),
    (
        "Cohere",
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
        "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    ),
    ("DeepSeek", "<｜User｜>", "<｜Assistant｜>"),
    ("Mistral", "[INST] ", " [/INST]"),
)
_BARE = (("bare, line break", "", "\n"), ("bare, blank line", "", "\n\n"), ("bare, space", "", " "))


@dataclass(frozen=True)
class ChatProbe:
    """A way to put a question and an answer: `name`, and the text around them."""

    name: str
    before: str
    between: str


def bare_probes() -> tuple[ChatProbe, ...]:
    """A question and its answer as plain text, without any label."""
    return tuple(ChatProbe(*parts) for parts in _BARE)


def format_probes(encoder: GuardedEncoder) -> tuple[ChatProbe, ...]:
    """The tokenizer's own chat format, and every published one whose tokens the vocabulary holds."""
    vocabulary = encoder.tokenizer.get_vocab()
    found = []
    if encoder.chat is not None:
        found.append(ChatProbe("own chat template", encoder.chat.before, encoder.chat.between))
    for name, before, between in _FORMATS:
        markers = re.findall(r"<[^>]+>|\[/?INST\]", before + between)
        if all(marker in vocabulary for marker in markers):
            found.append(ChatProbe(name, before, between))
    return tuple(found)


def turn_token_ids(encoder: GuardedEncoder) -> tuple[int, ...]:
    """Ids of the control tokens that begin or end a chat turn, going by their names."""
    return tuple(sorted(i for i, name in encoder.control_tokens.items() if is_turn_token(name)))


def probe_ids(encoder: GuardedEncoder, probe: ChatProbe, question: str, answer: str) -> tuple[int, ...]:
    """Ids of question and answer in the probe's format, under the model's BOS policy."""
    return (
        *(() if encoder.bos_id is None else (encoder.bos_id,)),
        *_with_controls(encoder, f"{probe.before}{question}{probe.between}{answer}"),
    )


def _with_controls(encoder: GuardedEncoder, text: str) -> list[int]:
    """Ids in which every control token is itself, also where the tokenizer would split its name."""
    raw = RawTokenizer(encoder.tokenizer)
    by_name = {name: i for i, name in encoder.control_tokens.items() if name and name in text}
    if not by_name:
        return raw.encode(text)
    longest_first = sorted(by_name, key=len, reverse=True)
    pieces = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    ids: list[int] = []
    for piece in pieces:
        ids += [by_name[piece]] if piece in by_name else raw.encode(piece) if piece else []
    if encoder.bos_id is not None and ids[:1] == [encoder.bos_id]:
        return ids[1:]  # some templates write the BOS themselves
    return ids
