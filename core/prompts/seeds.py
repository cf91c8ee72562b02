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


@cache
def load_seeds(path: Path = _BUILT_IN) -> tuple[Seed, ...]:
    """All seeds of a JSONL file, in file order.

    Raises:
        DataFileError: unreadable, or lines that are no seed or repeat an id, with their numbers.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"cannot read seed file {path}: {error}", lines=[]) from error
    seeds: dict[str, Seed] = {}
    broken: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        seed, problem = _parse(line)
        if seed is not None and seed.id in seeds:
            problem = f"id {seed.id} is there already"
        if problem or seed is None:
            broken.append((number, problem))
        else:
            seeds[seed.id] = seed
    if broken:
        listed = "\n".join(f"  line {number}: {problem}" for number, problem in broken)
        raise DataFileError(f"{path} has {len(broken)} broken lines:\n{listed}", lines=broken)
    return tuple(seeds.values())


def _parse(line: str) -> tuple[Seed | None, str]:
    try:
        row = json.loads(line)
    except ValueError as error:
        return None, f"not JSON ({error})"
    if not isinstance(row, dict):
        return None, "not an object"
    empty = [name for name in _FIELDS if not isinstance(row.get(name), str) or not row[name].strip()]
    if empty:
        return None, f"{', '.join(empty)} missing or empty"
    if row["type"] not in TYPES:
        return None, f"type {row['type']!r} is none of {', '.join(TYPES)}"
    return Seed(**{name: row[name] for name in _FIELDS}), ""
