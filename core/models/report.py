"""One check of a model, and the report that checks make together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Check:
    """One question about the model. `detail` is a sentence with numbers; `values` are JSON-able."""

    name: str
    ok: bool
    detail: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GuardReport:
    """All checks of one model, and what was loaded."""

    source: str
    checks: tuple[Check, ...]
    identity: dict[str, Any]

    @property
    def clean(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass, in order."""
        return tuple(check for check in self.checks if not check.ok)

    @property
    def verdict(self) -> str:
        """One line for people."""
        if self.clean:
            return f"clean: {self.source} behaves as a base model and its prompts are what is written"
        return f"refused: {self.source} failed {_listed([check.name for check in self.failed])}"

    def to_record(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {
            "source": self.source,
            "clean": self.clean,
            "verdict": self.verdict,
            "checks": [asdict(check) for check in self.checks],
            "identity": self.identity,
        }


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
