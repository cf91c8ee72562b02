"""A gate: machine checks, reviews, a policy or a person, one decision. The same for every gate.

The orchestrator's process ends while a person is awaited (`suspend_flow_run` raises `Pause`, a BaseException)
and Prefect runs the flow again from the top when the form is submitted; so everything here may run twice, and
the store answers first. Our decision is recorded in the store; Prefect carries the question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_run_logger, suspend_flow_run
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from core.config import RunConfig
from core.errors import GateRefusedError
from core.files import write_json, write_text
from core.iterations import comparison_rows
from core.provenance.manifest import MANIFEST, Artifact, read_artifact, seal_artifact
from core.store import (
    DecisionKind,
    GateCreate,
    GateDecisionCreate,
    GateDecisionPublic,
    GatePublic,
)
from flows.forms import answer_of, gate_form
from flows.notices import announce, link_to, schedule_parking
from reviews.injection import suspicious
from reviews.policy import (
    Accepted,
    GateAnswer,
    GateRules,
    Refusal,
    automatic_decision,
    judge_answer,
    usable_proposal,
    why_a_person,
)
from reviews.question import GateQuestion
from reviews.sheet import gate_sheet
from reviews.verdict import ReviewOutcome
from tasks.approvers import code_desk, keep_answer, rules_of
from tasks.bookkeeping import record_artifact
from tasks.gated_run import GatedRun
from tasks.reviewing import review_gate

SHEET_FILE = "sheet.md"
DECISION_FILE = "decision.json"


def pass_gate(
    run: GatedRun,
    question: GateQuestion,
    config: RunConfig,
    parents: Sequence[Artifact],
    iteration_id: int | None,
) -> tuple[GateDecisionPublic, Artifact]:
    """The decision of a gate and its sealed record; suspends the flow run while a person is awaited.

    Args:
        config: the config that made what is judged. parents: the artifacts that the record hangs on.

    Raises:
        GateRefusedError: another flow run waits at this gate.
    """
    rules = rules_of(run.config.gates)
    gate = run.store.open_gate(_gate(run, question, rules, iteration_id))
    folder = _folder(run, gate)
    decision = run.store.decision(gate.id)
    if decision is None:
        reviews = review_gate(
            gate.id, question, run.config.reviewer, folder, doubt=rules.policy == "reviewer"
        )
        decision = _decide(run, gate, question, config, rules, reviews, folder)
    return decision, _sealed(run, gate, decision, folder, parents)


def _gate(run: GatedRun, question: GateQuestion, rules: GateRules, iteration_id: int | None) -> GateCreate:
    return GateCreate(
        run_id=run.run_id,
        iteration_id=iteration_id,
        gate=question.gate,
        number=question.number,
        policy=rules.policy,
        artifact_kind=question.artifact.kind,
        artifact_path=question.artifact.path,
        artifact_sha256=question.artifact.sha256,
        manifest_sha256=question.artifact.manifest_sha256,
        config_hash=question.config_hash,
        failed_checks=list(question.facts.failed_checks),
    )


def _folder(run: GatedRun, gate: GatePublic) -> Path:
    return run.gate_folder(gate.key if gate.round == 1 else f"{gate.key}-round-{gate.round}")


def _decide(
    run: GatedRun,
    gate: GatePublic,
    question: GateQuestion,
    config: RunConfig,
    rules: GateRules,
    reviews: Mapping[str, ReviewOutcome],
    folder: Path,
) -> GateDecisionPublic:
    suspects = suspicious(_texts(question))
    automatic = automatic_decision(rules, question, reviews, suspects, config)
    why = why_a_person(question, reviews, suspects) if rules.policy == "reviewer" else []
    sheet = gate_sheet(question, reviews, why_person=why)
    proposal = usable_proposal(reviews, config)
    shown = {"sheet": sheet, "question": asdict(question), "proposal": proposal}
    # Kept while nobody has been asked yet; what a person saw is not written over afterwards.
    gate = run.store.show_gate(gate.id, shown)
    write_text(folder / SHEET_FILE, gate.shown["sheet"])
    if automatic is not None:
        accepted = Accepted(
            automatic.decision, automatic.reason, f"policy {rules.policy}", changes=automatic.changes
        )
        _publish(question, sheet)
        return _record(run, gate, question, accepted, via="policy", origin="")
    return _ask(run, gate, question, config, rules, reviews, why, proposal)


def _texts(question: GateQuestion) -> list[str]:
    rows = [*question.samples, *(row for rows in question.flagged.values() for row in rows)]
    return [str(row[field]) for row in rows for field in ("instruction", "response")]


def _ask(
    run: GatedRun,
    gate: GatePublic,
    question: GateQuestion,
    config: RunConfig,
    rules: GateRules,
    reviews: Mapping[str, ReviewOutcome],
    why: Sequence[str],
    proposal: Mapping[str, Any],
) -> GateDecisionPublic:
    form = gate_form(question.facts, rules, question.artifact.sha256, question.parameters, proposal)
    while True:
        ask, notice = _last_refusal(run, gate)
        _begin_to_wait(run, gate, question, rules)
        sheet = gate_sheet(question, reviews, notice=notice, why_person=why)
        filled = suspend_flow_run(
            wait_for_input=form.with_initial_data(description=sheet),
            key=f"{gate.key}-{gate.round}-{ask}",
            timeout=None,
        )
        decision = _answered(run, gate, question, config, rules, answer_of(filled), ask)
        if decision is not None:
            return decision


def _last_refusal(run: GatedRun, gate: GatePublic) -> tuple[int, str]:
    """How often this form was asked (from 1 on), and why its last answer was not taken."""
    refused = [answer for answer in run.store.answers(gate.id) if answer.ask and answer.refusal]
    if refused:
        return len(refused) + 1, refused[-1].refusal or ""
    before = [
        g
        for g in run.store.gates(run.run_id)
        if (g.key, g.round) == (gate.key, gate.round - 1) and g.void_reason
    ]
    return 1, f"{before[-1].void_reason}, so what there is now is asked anew" if before else ""


def _begin_to_wait(run: GatedRun, gate: GatePublic, question: GateQuestion, rules: GateRules) -> None:
    mine = str(flow_run.id)
    owner = gate.flow_run_id
    if owner not in (None, mine) and not is_alive(str(owner)):
        run.store.hand_over_gate(gate.id, mine)
    deadline = datetime.now(UTC) + timedelta(hours=rules.wait_hours)
    begins = run.store.wait_at_gate(gate.id, mine, deadline)
    schedule_parking(run.run_id, run.name, run.store.gate(gate.id))
    if begins:
        _publish(question, run.store.gate(gate.id).shown["sheet"])
        text = f"gate {gate.key} of {run.name} waits for a decision"
        announce("waiting", run.run_id, gate.key, text, link_to(mine))
    get_run_logger().info(
        "gate %s of %s waits for a person; nothing of it runs and nothing is spent. Decide with Resume in "
        "the UI, or `stagegate approve %s`",
        gate.key,
        run.name,
        run.name,
    )


def is_alive(flow_run_id: str) -> bool:
    """Whether that flow run can still go on: it exists, and has not ended."""
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(flow_run_id)).state
        except (ObjectNotFound, ValueError):
            return False
    return state is not None and not state.is_final()


def _answered(
    run: GatedRun,
    gate: GatePublic,
    question: GateQuestion,
    config: RunConfig,
    rules: GateRules,
    answer: GateAnswer,
    ask: int,
) -> GateDecisionPublic | None:
    """The decision that an answer makes; None when it was refused, and the person is asked again."""
    via, origin = _where_from(run, gate, answer)
    desk = code_desk(run.store, moment=_submitted_at())
    judged = judge_answer(answer, question.facts, rules, config, desk)
    if isinstance(judged, Accepted):
        try:
            decision = _record(run, gate, question, judged, via=via, origin=origin)
            keep_answer(run.store, gate.id, answer, ask, via, origin, None)
            return decision
        except GateRefusedError as error:
            if first := run.store.decision(gate.id):
                keep_answer(run.store, gate.id, answer, ask, via, origin, Refusal("late", str(error)))
                return first
            judged = Refusal("wrong_code", str(error))
    get_run_logger().warning("an answer to gate %s was not taken: %s", gate.key, judged.message)
    keep_answer(run.store, gate.id, answer, ask, via, origin, judged)
    return None


def _where_from(run: GatedRun, gate: GatePublic, answer: GateAnswer) -> tuple[str, str]:
    """`cli` or `code` with its origin, where a ticket for exactly this answer was left; else the UI."""
    fingerprint = answer.fingerprint()
    for ticket in reversed(run.store.answers(gate.id)):
        if ticket.refusal_kind == "submitted" and ticket.payload_sha256 == fingerprint:
            return ticket.via, ticket.origin
    return "ui", "the Prefect UI or API"


def _submitted_at() -> datetime:
    """When the form was submitted, by the server's clock: a code is judged as of then, not as of now."""
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(UUID(str(flow_run.id)))
    resumed = [s.timestamp for s in states if s.name == "Resuming" and s.timestamp is not None]
    return resumed[-1] if resumed else datetime.now(UTC)


def _record(
    run: GatedRun, gate: GatePublic, question: GateQuestion, accepted: Accepted, *, via: str, origin: str
) -> GateDecisionPublic:
    decision = run.store.decide_gate(
        GateDecisionCreate(
            gate_id=gate.id,
            decision=DecisionKind(accepted.decision),
            reason=accepted.reason,
            approver=accepted.approver,
            second_approver=accepted.second_approver,
            override=accepted.override,
            via=via,
            origin=origin,
            artifact_sha256=question.artifact.sha256,
            manifest_sha256=question.artifact.manifest_sha256,
            config_hash=question.config_hash,
            changes=dict(accepted.changes),
            code_steps=dict(accepted.code_steps),
        )
    )
    by = f"{decision.decision} by {decision.approver}" + (" (override)" if decision.override else "")
    text = f"gate {gate.key} of {run.name} was decided: {by}"
    get_run_logger().info(text)
    announce("decided", run.run_id, gate.key, text, link_to(str(flow_run.id)))
    return decision


def _publish(question: GateQuestion, sheet: str) -> None:
    """The sheet, and the iterations side by side, as artifacts of the flow run."""
    create_markdown_artifact(
        key=f"gate-{question.key}", description=f"Gate {question.key} of {question.run_name}", markdown=sheet
    )
    if question.history:
        create_table_artifact(
            key="iterations",
            description=f"Iterations of {question.run_name}",
            table=comparison_rows(question.history),
        )


def _sealed(
    run: GatedRun,
    gate: GatePublic,
    decision: GateDecisionPublic,
    folder: Path,
    parents: Sequence[Artifact],
) -> Artifact:
    """The gate's record on disk: sheet, reviews and decision, with what was judged as parent."""
    if (folder / MANIFEST).is_file():
        artifact = read_artifact(folder)
    else:
        write_json(folder / DECISION_FILE, decision.model_dump(mode="json"))
        files = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
        meta = {"run_id": run.run_id, "gate": gate.key, "decision": str(decision.decision)}
        artifact = seal_artifact(folder, "gate", files, parents, meta)
    record_artifact(run.run_id, artifact)
    return artifact
