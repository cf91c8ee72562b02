"""A run's iterations as the store knows them, in the form in which people compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.config import RunConfig
from core.errors import ConfigError
from core.iterations import IterationRecord, MetricPoint
from core.store import (
    DecisionKind,
    GateDecisionPublic,
    GatePublic,
    GateStatus,
    IterationPublic,
    QcMetricPublic,
    ReviewPublic,
    StageRunPublic,
    Store,
)
from core.tuning import TUNABLES, TuningValue, changed_values, next_config

PILOT = "pilot"


def iteration_records(store: Store, run_id: str) -> list[IterationRecord]:
    """All iterations of a run, first to last, with what was decided after each."""
    stages = store.stages(run_id)
    records: list[IterationRecord] = []
    for iteration in store.iterations(run_id):
        before = records[-1] if records else None
        records.append(_record(store, iteration, before, stages))
    return records


def _record(
    store: Store,
    iteration: IterationPublic,
    before: IterationRecord | None,
    stages: Sequence[StageRunPublic],
) -> IterationRecord:
    metrics = store.metrics(iteration.run_id, iteration_id=iteration.id)
    parameters = tuning_of_params(iteration.params)
    decision = pilot_decision(store, iteration.run_id, iteration.number)
    kept = next((m.value for m in metrics if m.name == "kept_pairs"), None)
    return IterationRecord(
        number=iteration.number,
        seed=iteration.seed,
        parameters=parameters,
        metrics={metric.name: _point(metric) for metric in metrics},
        verdict=None if iteration.verdict is None else str(iteration.verdict),
        changes=_changes(before, parameters),
        advised=advice_before(store, iteration.run_id, iteration.number),
        kept=None if kept is None else int(kept),
        seconds=_seconds(stages, iteration.id),
        cost_usd_micros=store.spent_usd_micros(run_id=iteration.run_id, iteration_id=iteration.id),
        decision=None if decision is None else _decided(decision),
    )


def iteration_config(store: Store, run_id: str, config: RunConfig, number: int) -> RunConfig:
    """The run's config with every approved change before an iteration, and that iteration's fresh seed.

    Raises:
        ConfigError: nobody asked for this iteration: the one before it was not decided as `iterate`.
    """
    current = config
    for earlier in range(1, number):
        decision = pilot_decision(store, run_id, earlier)
        if decision is None or decision.decision is not DecisionKind.ITERATE:
            raise ConfigError(f"iteration {number} of {config.run.name} was not asked for", problems=[])
        current = next_config(current, decision.changes, seed=config.run.seed + earlier)
    return current


def tuning_of_params(params: Mapping[str, Any]) -> dict[str, TuningValue]:
    """Tunable values out of an iteration's recorded sections."""
    values: dict[str, TuningValue] = {}
    for name, tunable in TUNABLES.items():
        section, _, field = tunable.key.partition(".")
        value = params.get(section, {}).get(field)
        if value is not None:
            values[name] = value
    return values


def pilot_decision(store: Store, run_id: str, number: int) -> GateDecisionPublic | None:
    """The decision after an iteration; None while nobody has decided, or when it is void."""
    for gate in store.gates(run_id):
        if (gate.gate, gate.number, gate.status) == (PILOT, number, GateStatus.DECIDED):
            return store.decision(gate.id)
    return None


def advice_before(store: Store, run_id: str, number: int) -> dict[str, TuningValue] | None:
    """What the reviewer proposed after the iteration before this one; None where nobody gave a verdict."""
    review = review_before(store, run_id, number)
    return None if review is None else advice_of(review, store.gate(review.gate_id))


def advice_of(review: ReviewPublic, gate: GatePublic) -> dict[str, TuningValue] | None:
    """What a review proposes to change at its gate; what is so already is no change. None for no verdict."""
    if not review.verdict:
        return None
    current = gate.shown.get("question", {}).get("parameters", {})
    return changed_values(current, review.verdict["changes"])


def advice_taken(store: Store, review: ReviewPublic) -> tuple[int, int]:
    """How many of a review's proposals the decision took over, and how many there were."""
    advised = advice_of(review, store.gate(review.gate_id)) or {}
    decision = store.decision(review.gate_id)
    changes = {} if decision is None else decision.changes
    return sum(changes.get(name) == value for name, value in advised.items()), len(advised)


def review_before(store: Store, run_id: str, number: int) -> ReviewPublic | None:
    """The first reviewer's review after the iteration before this one."""
    for gate in store.gates(run_id):
        if (gate.gate, gate.number) == (PILOT, number - 1) and gate.status is not GateStatus.VOID:
            return next((r for r in store.reviews(gate_id=gate.id) if r.reviewer == "primary"), None)
    return None


def _point(metric: QcMetricPublic) -> MetricPoint:
    return MetricPoint(metric.value, metric.bound, metric.threshold, str(metric.verdict), metric.unit)


def _changes(before: IterationRecord | None, parameters: Mapping[str, TuningValue]) -> dict[str, TuningValue]:
    if before is None:
        return {}
    return {name: value for name, value in parameters.items() if before.parameters.get(name) != value}


def _seconds(stages: Sequence[StageRunPublic], iteration_id: int) -> float | None:
    known = [s.seconds for s in stages if s.iteration_id == iteration_id and s.seconds is not None]
    return sum(known) if known else None


def _decided(decision: GateDecisionPublic) -> str:
    override = " (override)" if decision.override else ""
    return f"{decision.decision}{override} by {decision.approver}"
