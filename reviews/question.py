"""What a gate puts before reviewers and people: the same facts for both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.iterations import IterationRecord
from core.tuning import TuningValue

GateName = Literal["premise", "pilot", "dataset", "evaluation"]


@dataclass(frozen=True)
class JudgedArtifact:
    """The thing that is judged. `sha256` is of its content, `manifest_sha256` of all that it hangs on."""

    kind: str
    path: str
    sha256: str
    manifest_sha256: str


@dataclass(frozen=True)
class Check:
    """One machine check. A failed one cannot be approved away."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class GateFacts:
    """As much of a gate as an answer is judged by. A gate without any check counts as failed."""

    number: int
    failed_checks: tuple[str, ...]
    iterations_left: int


@dataclass(frozen=True)
class Outlook:
    """What the project has cost and what comes next, in micro-USD; None where nobody can know yet."""

    budget_usd_micros: int
    spent_usd_micros: int
    next_stage: str
    next_low_usd_micros: int | None = None
    next_high_usd_micros: int | None = None
    next_basis: str = "not known yet"
    iterate_usd_micros: int | None = None

    @property
    def left_usd_micros(self) -> int:
        """What is left of the budget; below zero when it is overspent."""
        return self.budget_usd_micros - self.spent_usd_micros


@dataclass(frozen=True)
class GateQuestion:
    """A gate's question. `metrics`, `samples` and `flagged` have the form of `qc_summary.json`.

    Attributes:
        number: the iteration at the pilot gate, else 1.
        parameters: tunable values in force, by name (`core.tuning`).
        history: all iterations up to and with this one, first to last.
        limits_changed: QC limits that differ from their defaults, as name: (default, now).
        iterations_left: how many more iterations may be asked for.
        links: title and path of what belongs to it; a page of the UI cannot link to files.
    """

    gate: GateName
    number: int
    run_name: str
    project: str
    model_source: str
    artifact: JudgedArtifact
    config_hash: str
    checks: tuple[Check, ...]
    metrics: Mapping[str, Mapping[str, Any]]
    samples: tuple[Mapping[str, Any], ...]
    flagged: Mapping[str, tuple[Mapping[str, Any], ...]]
    parameters: Mapping[str, TuningValue]
    history: tuple[IterationRecord, ...]
    outlook: Outlook
    iterations_left: int = 0
    limits_changed: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """`pilot-2`: the gate and its number."""
        return f"{self.gate}-{self.number}"

    @property
    def facts(self) -> GateFacts:
        """What an answer is judged by."""
        failed = tuple(check.name for check in self.checks if not check.ok)
        return GateFacts(self.number, failed if self.checks else ("no check was run",), self.iterations_left)

    @property
    def checks_ok(self) -> bool:
        """Whether machine checks were run and every one passed."""
        return not self.facts.failed_checks
