"""Rubrics: what a reviewer is told, as dated text files, one folder for each version.

A published version is never edited, since outcomes name its sha256; a change is a new folder.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError
from reviews.question import GateName

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Rubric:
    """What a reviewer is told at one gate; `sha256` covers both texts."""

    version: str
    gate: GateName
    system_text: str
    question_text: str
    sha256: str


def rubric_versions() -> list[str]:
    """The versions that exist, in order of name."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/system.md"))


def load_rubric(version: str, gate: GateName) -> Rubric:
    """The rubric of a version for a gate.

    Raises:
        ConfigError: there is no such version; names those that exist.
    """
    known = rubric_versions()
    if version not in known:
        raise ConfigError(
            f"there is no rubric {version!r}; set reviewer.rubric to one of {', '.join(known)}",
            rubric=version,
        )
    system = (_FOLDER / version / "system.md").read_text(encoding="utf-8")
    question = (_FOLDER / version / f"{gate}.md").read_text(encoding="utf-8")
    digest = hashlib.sha256(f"{system}\0{question}".encode()).hexdigest()
    return Rubric(version, gate, system, question, digest)
