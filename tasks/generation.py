"""Generation: one task run for each committed unit, resumed from the journal."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import update_progress_artifact
from prefect.cache_policies import NO_CACHE

from core.config import RunConfig, SamplingSection
from core.critics.base import AcceptRule
from core.critics.build import CertifiedCritic, build_critic
from core.engines.base import Sampling
from core.errors import DataFileError
from core.generation.journal import Journal
from core.generation.loop import Generation, Progression, forecast
from core.generation.plan import GenerationPlan
from core.generation.pool import DedupPool
from core.progress import ProgressEvent, emit
from core.prompts.registry import response_stops
from core.prompts.seeds import load_seeds
from tasks.model import draw_shots
from tasks.policies import RETRIES, RETRY_DELAYS_S, is_transient
from tasks.resources import engine_for, forget_generation, keep_generation, kept_generation
from tasks.screens import mechanical_screen

JOURNAL = "candidates.jsonl"
PROGRESS_EVERY_S = 2.0


def build_plan(config: RunConfig) -> GenerationPlan:
    """The values of a config that generation needs."""
    i, r, t = config.instructions, config.responses, config.target
    shots = draw_shots(config.run.seed, r.few_shot_pairs)
    shown = {shot_id for shot_id, _, _ in shots}
    return GenerationPlan(
        seed=config.run.seed,
        instruction_sampling=_sampling(i),
        instruction_max_new_tokens=i.max_new_tokens,
        seeds_per_prompt=i.seeds_per_prompt,
        accepted_per_prompt=i.accepted_per_prompt,
        prompts_per_round=i.prompts_per_round,
        samples_per_prompt=i.samples_per_prompt,
        items_per_completion=i.items_per_completion,
        min_words=i.min_words,
        max_words=i.max_words,
        response_sampling=_sampling(r),
        response_max_new_tokens=r.max_new_tokens,
        shots=shots,
        stops=response_stops() if r.use_stop_strings else (),
        seed_items=tuple((s.id, s.type, s.instruction) for s in load_seeds() if s.id not in shown),
        target_count=t.count,
        max_candidates=t.max_candidates,
        min_response_candidates=t.min_response_candidates,
        min_new_unique_ratio=t.min_new_unique_ratio,
        give_up_rounds=t.give_up_rounds,
    )


def _sampling(section: SamplingSection) -> Sampling:
    return Sampling(section.temperature, section.top_p, section.top_k, section.repetition_penalty)


def open_generation(
    config: RunConfig, folder: Path, certificates: Mapping[str, Any], provenance: str
) -> Generation:
    """The run's generation, read from its journal unless this process has it open."""
    if kept := kept_generation(folder):
        return kept
    engine = engine_for(config.model, config.engine)
    plan = build_plan(config)
    dedup = config.dedup
    reserved = [(s.id, s.instruction, "seed") for s in load_seeds()]
    if dedup.heldout_file is not None:
        reserved += read_heldout(dedup.heldout_file)
    generation = Generation(
        engine=engine,
        plan=plan,
        journal=Journal(folder / JOURNAL),
        pool=DedupPool(dedup.jaccard_ratio, dedup.shingle_words, dedup.permutations, reserved),
        critics={
            subject: _critic(certificate["chosen"], subject, engine, plan)
            for subject, certificate in certificates.items()
        },
        screen=mechanical_screen(config.qc),
        provenance=provenance,
    )
    keep_generation(folder, generation)
    return generation


def _critic(chosen: Mapping[str, Any], subject: str, engine: Any, plan: GenerationPlan) -> CertifiedCritic:
    rule = AcceptRule(chosen["margin_nats"], chosen["min_label_mass_ratio"], chosen["informative"])
    return CertifiedCritic(build_critic(chosen["kind"], engine, subject, plan.shots), rule)


def read_heldout(path: Path) -> list[tuple[str, str, str]]:
    """(id, instruction, `heldout`) of a JSONL file with `instruction` or `prompt` in each line.

    Raises:
        DataFileError: unreadable, or lines without an instruction, with all their numbers.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"cannot read held-out file {path}: {error}", lines=[]) from error
    items: list[tuple[str, str, str]] = []
    broken: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        text = _instruction_of(line)
        if text is None:
            broken.append(number)
        else:
            items.append((f"heldout-{number}", text, "heldout"))
    if broken:
        raise DataFileError(
            f"held-out file {path}: no `instruction` or `prompt` on lines "
            f"{', '.join(map(str, broken))}; nothing may be generated against half a held-out set",
            lines=broken,
        )
    return items


def _instruction_of(line: str) -> str | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    text = (row.get("instruction") or row.get("prompt")) if isinstance(row, dict) else None
    return text if isinstance(text, str) and text.strip() else None


@task(
    name="generate-unit",
    task_run_name="{unit}",
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=is_transient,
)
def generate_unit(
    unit: str,
    config: RunConfig,
    folder: Path,
    certificates: dict[str, Any],
    provenance: str,
    progress_artifact: Any,
) -> dict[str, Any]:
    """Compute and commit the next unit of the journal; its summary."""
    generation = open_generation(config, folder, certificates, provenance)
    report = _Reporter(unit, generation.state, generation.plan, config, progress_artifact)
    try:
        batch = generation.advance(report.during)
    except BaseException:
        forget_generation(folder)  # its pool may hold half a unit; the journal does not
        raise
    report.after()
    return {"unit": batch.name, "records": len(batch.records), **batch.summary}


class _Reporter:
    """Turns unit progress into events and the run's progress artifact."""

    def __init__(
        self,
        unit: str,
        state: Progression,
        plan: GenerationPlan,
        config: RunConfig,
        artifact: Any,
    ) -> None:
        self.unit, self.state, self.plan, self.config = unit, state, plan, config
        self.artifact = artifact
        self.started = self.last = time.monotonic()

    def during(self, finished: int, tokens: int) -> None:
        """Called by the engine; says something every few seconds."""
        now = time.monotonic()
        if now - self.last >= PROGRESS_EVERY_S:
            self.last = now
            self._emit(f"{self.unit}: {finished} completions", tokens / (now - self.started))

    def after(self) -> None:
        """Called when the unit is committed."""
        state = self.state
        rate = state.completion_tokens / state.seconds if state.seconds else None
        self._emit(f"{self.unit} committed", rate)
        if self.artifact is not None:
            share = 100 * len(state.accepted) / self.plan.target_count
            update_progress_artifact(self.artifact, progress=min(100.0, share))

    def _emit(self, message: str, rate: float | None) -> None:
        state, price = self.state, self.config.cost.device_usd_per_hour / 3600
        ahead = forecast(state, self.plan)
        spent = (state.seconds + (time.monotonic() - self.started)) * price
        emit(
            ProgressEvent(
                "generation",
                message,
                done=len(state.accepted),
                total=self.plan.target_count,
                unit="accepted",
                rate=rate,
                rate_unit="tok/s",
                eta_s=ahead.seconds_to_go if ahead else None,
                spent_usd=spent,
                projected_usd=spent + ahead.seconds_to_go * price if ahead else None,
            )
        )


@task(name="resume-generation", cache_policy=NO_CACHE)
def generation_status(
    config: RunConfig, folder: Path, certificates: dict[str, Any], provenance: str
) -> dict[str, Any]:
    """What comes next: the name of the next unit, or why generation has ended; and the forecast."""
    generation = open_generation(config, folder, certificates, provenance)
    state = generation.state
    ahead = forecast(state, generation.plan)
    waiting = state.awaiting is not None
    number = state.rounds_begun - 1 if waiting else state.rounds_begun
    return {
        "ended": state.ended(generation.plan),
        "next": f"{'responses' if waiting else 'instructions'}-{number}",
        "units_done": len(generation.journal.batches),
        "accepted": len(state.accepted),
        "instruction_candidates": state.instruction_candidates,
        "response_candidates": state.response_candidates,
        "seconds": state.seconds,
        "completion_tokens": state.completion_tokens,
        "forecast": None if ahead is None else ahead.__dict__,
    }
