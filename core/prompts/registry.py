"""The one registry of prompt templates, each with a version and a content hash.

Generation, critics, training and evaluation all render from here; a record stores the template hash,
the few-shot draw and a hash of the ids that were sent. Text that prompts share comes first and byte
for byte the same, so that engines reuse its KV cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_DATA = Path(__file__).parent / "data" / "templates.yaml"


@dataclass(frozen=True)
class Template:
    """A named prompt template; `hash` is the sha256 over its fields."""

    name: str
    version: int
    fields: Mapping[str, Any]

    @property
    def hash(self) -> str:
        canonical = json.dumps({"name": self.name, **self.fields}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


@cache
def templates() -> Mapping[str, Template]:
    """All templates by name."""
    raw = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    return {name: Template(name, fields["version"], fields) for name, fields in raw.items()}


@dataclass(frozen=True)
class RenderedPrompt:
    """Text to complete, with what it was made of. `draw` names the few-shot items in order."""

    text: str
    template_hash: str
    draw: tuple[str, ...] = ()


def render_instruction_list(shown: Sequence[tuple[str, str]]) -> tuple[RenderedPrompt, int]:
    """The open numbered list after `shown` (id, instruction), and the number that it ends on."""
    template = templates()["instruction_list"]
    fields = template.fields
    items = [
        fields["item"].format(number=number, instruction=instruction)
        for number, (_, instruction) in enumerate(shown, start=1)
    ]
    number = len(shown) + 1
    text = fields["header"] + "".join(items) + fields["open"].format(number=number)
    return RenderedPrompt(text, template.hash, tuple(item_id for item_id, _ in shown)), number


def render_response(instruction: str, pairs: Sequence[tuple[str, str, str]]) -> RenderedPrompt:
    """Few-shot `pairs` of (id, instruction, response), then the instruction, open for its response.

    No pairs gives the zero-shot prompt.
    """
    template = templates()["response"]
    fields = template.fields
    shots = [fields["pair"].format(instruction=i, response=r) for _, i, r in pairs]
    text = fields["header"] + "".join(shots) + fields["open"].format(instruction=instruction)
    return RenderedPrompt(text, template.hash, tuple(item_id for item_id, _, _ in pairs))


def response_stops() -> tuple[str, ...]:
    """Stop strings of the response prompt: the delimiter between its few-shot pairs."""
    return tuple(templates()["response"].fields["stop"])


def render_label_prompt(name: str, item: Mapping[str, str], good: str, bad: str) -> str:
    """Rubric `name` with its labelled examples and then `item`, open for its label."""
    fields = templates()[name].fields
    parts = [fields["header"].format(good=good, bad=bad)]
    for example in fields["examples"]:
        parts.append(fields["item"].format(**example))
        parts.append(fields["label"].format(label=good if example["good"] else bad))
    parts.append(fields["item"].format(**item))
    return "".join(parts)
