"""The hand-written seed items: what few-shot prompts show and what critics are certified on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from core.errors import DataFileError

TYPES = ("factual", "explanation", "list_generation", "instruction_following", "creative")
_FIELDS = ("id", "type", "instruction", "response")
_BUILT_IN = Path(__file__).parent / "data" / "seeds.jsonl"


@dataclass(frozen=True)
class Seed:
    """One seed: an instruction of a type, and a good response to it."""

    id: str
    type: str
    instruction: str
    response: str


def load_seeds(path: Path | None = None) -> tuple[Seed, ...]:
    """All seeds of a JSONL file in file order; the built-in ones, read once, where none is given.

    Raises:
        DataFileError: unreadable, empty, or lines that are no seed or repeat an id; `lines` holds
            (line number, problem) for all of them.
    """
    return _built_in() if path is None else _read(path)


@cache
def _built_in() -> tuple[Seed, ...]:
    return _read(_BUILT_IN)


def _read(path: Path) -> tuple[Seed, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"cannot read seed file {path}: {error}", lines=[]) from error
    if not text.strip():
        raise DataFileError(f"seed file {path} is empty; give it one JSON object a line", lines=[])
    # Not str.splitlines: it also cuts at separators that may stand inside a JSON string.
    seeds, broken = _parse_lines(text.removesuffix("\n").split("\n"))
    if broken:
        listed = "\n".join(f"  line {number}: {problem}" for number, problem in broken)
        raise DataFileError(
            f"seed file {path}: {len(broken)} lines cannot be used; correct or remove them:\n{listed}",
            lines=broken,
        )
    return seeds


def _parse_lines(lines: list[str]) -> tuple[tuple[Seed, ...], list[tuple[int, str]]]:
    seeds: list[Seed] = []
    broken: list[tuple[int, str]] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        parsed = _parse(line)
        if isinstance(parsed, str):
            broken.append((number, parsed))
        elif parsed.id in first_line:
            broken.append((number, f"id {parsed.id!r} is on line {first_line[parsed.id]} already"))
        else:
            first_line[parsed.id] = number
            seeds.append(parsed)
    return tuple(seeds), broken


def _parse(line: str) -> Seed | str:
    """The seed of one line, or what is wrong with the line."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"not JSON ({error})"
    if not isinstance(row, dict):
        return "not an object"
    empty = [name for name in _FIELDS if not isinstance(row.get(name), str) or not row[name].strip()]
    if empty:
        return f"{', '.join(empty)} missing or empty"
    if row["type"] not in TYPES:
        return f"type {row['type']!r} is none of {', '.join(TYPES)}"
    return Seed(**{name: row[name] for name in _FIELDS})
