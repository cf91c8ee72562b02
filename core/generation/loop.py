"""The round loop: instructions, then responses to the accepted ones, until enough pairs are accepted.

A unit is one committed batch of the journal: `instructions-k` or `responses-k`. A unit's output
depends on the config and the units before it and on nothing else, so a run that was killed anywhere
and started again writes the same records as one that was not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from core.critics.build import CertifiedCritic
from core.engines.base import Completion, CompletionEngine, Progress
from core.generation.fates import ACCEPTED
from core.generation.instructions import write_instructions
from core.generation.journal import Batch, Journal
from core.generation.plan import GenerationPlan, Screen
from core.generation.pool import DedupPool
from core.generation.responses import write_responses

INSTRUCTIONS = "instructions"
RESPONSES = "responses"

END_REACHED = "reached"
END_CAP = "candidate_cap"
END_EXHAUSTED = "nothing_new"


@dataclass
class Progression:
    """Where a run stands, from its committed batches alone."""

    rounds_begun: int = 0
    awaiting: list[dict[str, Any]] | None = None
    instruction_candidates: int = 0
    response_candidates: int = 0
    accepted: list[dict[str, Any]] = field(default_factory=list)
    new_unique_ratios: list[float] = field(default_factory=list)
    seconds: float = 0.0
    completion_tokens: int = 0

    def take_in(self, batch: Batch) -> None:
        """Count one committed batch."""
        self.seconds += batch.summary["seconds"]
        self.completion_tokens += batch.summary["completion_tokens"]
        if batch.name.startswith(INSTRUCTIONS):
            self.rounds_begun += 1
            self.instruction_candidates += len(batch.records)
            self.awaiting = [r for r in batch.records if r["fate"] == ACCEPTED]
            # A critic's refusal is no repetition: only duplicates count against a round's yield of new items.
            twins = sum(1 for r in batch.records if str(r["reason"]).startswith("duplicate"))
            formed = sum(1 for r in batch.records if r["complete"])
            self.new_unique_ratios.append((formed - twins) / formed if formed else 0.0)
        else:
            self.awaiting = None
            self.response_candidates += len(batch.records)
            self.accepted += [r for r in batch.records if r["fate"] == ACCEPTED]

    def ended(self, plan: GenerationPlan) -> str | None:
        """Why the run is over, or None. Never in the middle of a round."""
        if self.awaiting is not None:
            return None
        enough = self.response_candidates >= plan.min_response_candidates
        if len(self.accepted) >= plan.target_count and enough:
            return END_REACHED
        if self.instruction_candidates >= plan.max_candidates:
            return END_CAP
        last = self.new_unique_ratios[-plan.give_up_rounds :]
        low = all(ratio < plan.min_new_unique_ratio for ratio in last)
        return END_EXHAUSTED if low and len(last) == plan.give_up_rounds else None


@dataclass(frozen=True)
class Forecast:
    """What is still to come, at the rates so far. Seconds of computing; ratios per candidate."""

    accepted_per_candidate_ratio: float
    candidates_to_go: int
    seconds_to_go: float
    reachable: bool


def forecast(state: Progression, plan: GenerationPlan) -> Forecast | None:
    """Yield and time to the target from the rounds done so far; None before the first is done."""
    if state.awaiting is not None or not state.instruction_candidates:
        return None
    ratio = len(state.accepted) / state.instruction_candidates
    responded = state.response_candidates / state.instruction_candidates
    missing = max(0, plan.target_count - len(state.accepted))
    needs = [missing / ratio if ratio else float("inf")] if missing else [0.0]
    if state.response_candidates < plan.min_response_candidates:
        gap = plan.min_response_candidates - state.response_candidates
        needs.append(gap / responded if responded else float("inf"))
    need = max(needs)
    room = plan.max_candidates - state.instruction_candidates
    to_go = int(min(need, room)) if need != float("inf") else room
    per_candidate = state.seconds / state.instruction_candidates
    return Forecast(ratio, to_go, to_go * per_candidate, reachable=need <= room)


class Generation:
    """A generation run over a journal. `advance` computes and commits the next unit.

    Args:
        reserved: (id, text, kind) that no instruction may repeat: seeds and held-out items.
        provenance: hash that every record carries, of the run's provenance document.
    """

    def __init__(
        self,
        engine: CompletionEngine,
        plan: GenerationPlan,
        journal: Journal,
        pool: DedupPool,
        critics: dict[str, CertifiedCritic],
        screen: Screen,
        provenance: str,
    ) -> None:
        self.engine = engine
        self.plan = plan
        self.journal = journal
        self.pool = pool
        self.critics = critics
        self.screen = screen
        self.provenance = provenance
        self.state = Progression()
        for batch in journal.batches:
            self._remember(batch)
            self.state.take_in(batch)

    def _remember(self, batch: Batch) -> None:
        """Put the unique instructions of a committed batch back into the pool."""
        for record in batch.records:
            if record["kind"] == "instruction" and "critique" in record:
                self.pool.add(record["id"], record["instruction"])

    def advance(self, on_progress: Progress | None = None) -> Batch:
        """Compute, commit and count the next unit."""
        started = time.monotonic()
        number = self.state.rounds_begun
        if self.state.awaiting is None:
            name = f"{INSTRUCTIONS}-{number}"
            records, completions = self._instructions(number, on_progress)
        else:
            name = f"{RESPONSES}-{number - 1}"
            records, completions = self._responses(self.state.awaiting, on_progress)
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        stamped = [r | {"provenance": self.provenance, "created_at": stamp} for r in records]
        batch = self.journal.append(name, stamped, _summary(completions, time.monotonic() - started))
        self.state.take_in(batch)
        return batch

    def _instructions(
        self, number: int, on_progress: Progress | None
    ) -> tuple[list[dict[str, Any]], list[Completion]]:
        drawable = [(r["id"], r["instruction"]) for r in self.state.accepted]
        return write_instructions(
            self.engine,
            self.plan,
            number,
            drawable,
            self.pool,
            self.critics["instruction"],
            self.screen,
            on_progress,
        )

    def _responses(
        self, awaiting: Sequence[dict[str, Any]], on_progress: Progress | None
    ) -> tuple[list[dict[str, Any]], list[Completion]]:
        return write_responses(
            self.engine, self.plan, awaiting, self.critics["pair"], self.screen, on_progress
        )

    def run(self) -> str:
        """Advance to the end; returns why it ended."""
        while (end := self.state.ended(self.plan)) is None:
            self.advance()
        return end


def _summary(completions: Sequence[Completion], seconds: float) -> dict[str, Any]:
    return {
        "seconds": round(seconds, 3),
        "completions": len(completions),
        "prompt_tokens": sum(c.prompt_tokens for c in completions),
        "completion_tokens": sum(c.completion_tokens for c in completions),
    }


def funnel(journal: Journal) -> dict[str, Any]:
    """Counts from first candidate to accepted pair, with the reasons of every rejection."""
    instructions, pairs = journal.records("instruction"), journal.records("pair")

    def reasons(records: Sequence[dict[str, Any]]) -> dict[str, int]:
        return dict(sorted(Counter(r["reason"] for r in records if r["fate"] != ACCEPTED).items()))

    def accepted(records: Sequence[dict[str, Any]]) -> int:
        return sum(r["fate"] == ACCEPTED for r in records)

    def judged(records: Sequence[dict[str, Any]]) -> int:
        return sum("critique" in r for r in records)

    return {
        "instruction_candidates": len(instructions),
        "instruction_rejections": reasons(instructions),
        "instructions_judged": judged(instructions),
        "instructions_accepted": accepted(instructions),
        "response_candidates": len(pairs),
        "response_rejections": reasons(pairs),
        "pairs_judged": judged(pairs),
        "pairs_accepted": accepted(pairs),
    }
