"""Verbs for gates: open, wait, park, answer, decide once, declare void."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from core.errors import BadInputError, GateRefusedError
from core.store.fields import DecisionKind, GateStatus
from core.store.lookups import locked_run, own_iteration
from core.store.models import (
    Gate,
    GateAnswer,
    GateAnswerCreate,
    GateAnswerPublic,
    GateCreate,
    GateDecision,
    GateDecisionCreate,
    GateDecisionPublic,
    GatePublic,
    UsedCode,
)
from core.store.sessions import SessionSource, as_public, saved

_SAME_ARTIFACT = ("artifact_sha256", "manifest_sha256", "config_hash")
_SAME_QUESTION = (*_SAME_ARTIFACT, "failed_checks")
_CREATED = set(GateCreate.model_fields)
UNDECIDED = (GateStatus.OPEN, GateStatus.WAITING, GateStatus.PARKED)


class GateVerbs(SessionSource):
    """Open, answer and decide gates."""

    def open_gate(self, gate: GateCreate) -> GatePublic:
        """The gate for exactly this artifact and these checks: the one that is there, or a new round of it.

        A live gate for another artifact, or one that fails other checks than it did, becomes void, its
        approval with it, before the new one opens.

        Raises:
            BadInputError: no such run or iteration.
        """
        with self.transaction() as session:
            locked_run(gate.run_id, session=session)
            if gate.iteration_id is not None:
                own_iteration(gate.iteration_id, gate.run_id, session=session)
            rounds = _rounds(gate.run_id, gate.gate, gate.number, session=session)
            for row in rounds:
                if row.status is GateStatus.VOID:
                    continue
                changed = [name for name in _SAME_QUESTION if getattr(row, name) != getattr(gate, name)]
                if not changed:
                    return GatePublic.model_validate(row)
                self._void(row, f"{', '.join(changed)} changed after it was shown")
                session.add(row)
            session.flush()
            values = {"round": len(rounds) + 1, "opened_at": self._clock()}
            return saved(Gate.model_validate(gate, update=values), GatePublic, session=session)

    def void_gate(self, gate_id: int, reason: str) -> GatePublic:
        """The gate, void: what was decided on it counts for nothing from now on."""
        with self.transaction() as session:
            row = _locked_gate(gate_id, session=session)
            if row.status is not GateStatus.VOID:
                self._void(row, reason)
            return saved(row, GatePublic, session=session)

    def show_gate(self, gate_id: int, shown: dict[str, Any]) -> GatePublic:
        """The gate with what people are shown; once somebody has been asked, it stays as it was shown."""
        with self.transaction() as session:
            row = _locked_gate(gate_id, session=session)
            if row.status is GateStatus.OPEN:
                row.shown = GateCreate.model_validate(
                    {**row.model_dump(include=_CREATED), "shown": shown}
                ).shown
            return saved(row, GatePublic, session=session)

    def wait_at_gate(self, gate_id: int, flow_run_id: str, deadline: datetime) -> bool:
        """Whether the gate begins to wait now: True once, False when it waits (or is parked) already.

        Raises:
            GateRefusedError: another flow run waits here; `flow_run_id` says which.
            BadInputError: the gate is decided or void.
        """
        with self.transaction() as session:
            row = _locked_gate(gate_id, session=session)
            if row.status not in UNDECIDED:
                raise BadInputError(f"gate {row.gate}-{row.number} is {row.status}; nobody can wait at it")
            if row.flow_run_id not in (None, flow_run_id):
                raise GateRefusedError(
                    f"gate {row.gate}-{row.number} is waited at by flow run {row.flow_run_id}; decide there",
                    flow_run_id=row.flow_run_id,
                )
            if row.status is not GateStatus.OPEN:
                return False
            row.status, row.flow_run_id = GateStatus.WAITING, flow_run_id
            row.waiting_at, row.deadline_at = self._clock(), deadline
            session.add(row)
            return True

    def hand_over_gate(self, gate_id: int, flow_run_id: str) -> GatePublic:
        """The undecided gate, waited at by another flow run from now on (the one before it is gone)."""
        with self.transaction() as session:
            row = _locked_gate(gate_id, session=session)
            if row.status in UNDECIDED:
                row.flow_run_id = flow_run_id
            return saved(row, GatePublic, session=session)

    def park_gate(self, gate_id: int) -> bool:
        """Whether the gate is parked now; False when it was not waiting, or its deadline is still to come."""
        with self.transaction() as session:
            row = _locked_gate(gate_id, session=session)
            due = row.deadline_at is not None and row.deadline_at <= self._clock()
            if row.status is not GateStatus.WAITING or not due:
                return False
            row.status = GateStatus.PARKED
            session.add(row)
            return True

    def record_answer(self, answer: GateAnswerCreate) -> GateAnswerPublic:
        """An answer that was given, taken or refused; every one is kept."""
        with self.transaction() as session:
            row = GateAnswer.model_validate(answer, update={"given_at": self._clock()})
            return saved(row, GateAnswerPublic, session=session)

    def answers(self, gate_id: int) -> list[GateAnswerPublic]:
        """All answers to a gate in the order in which they came."""
        with self.snapshot() as session:
            query = select(GateAnswer).where(GateAnswer.gate_id == gate_id).order_by(col(GateAnswer.id))
            return as_public(session.exec(query).all(), GateAnswerPublic)

    def wrong_codes(self, approver: str, since: datetime) -> int:
        """How many wrong one-time codes were given in this name since then, at any gate."""
        with self.snapshot() as session:
            query = select(GateAnswer).where(
                GateAnswer.approver == approver,
                GateAnswer.refusal_kind == "wrong_code",
                col(GateAnswer.given_at) >= since,
            )
            return len(session.exec(query).all())

    def code_is_used(self, approver: str, step: int) -> bool:
        """Whether the approver's one-time code of this time step has opened something already."""
        with self.snapshot() as session:
            query = select(UsedCode).where(UsedCode.approver == approver, UsedCode.step == step)
            return session.exec(query).first() is not None

    def decide_gate(self, decision: GateDecisionCreate) -> GateDecisionPublic:
        """The gate's decision: this one, if it is the first.

        Raises:
            GateRefusedError: somebody decided before (`approver`, `decision`), the gate is void, the hashes
                are of another artifact, failed checks are approved without override, or a code was used.
        """
        with self.transaction() as session:
            row = _locked_gate(decision.gate_id, session=session)
            _refuse_decided(row, session=session)
            _refuse_mismatch(row, decision)
            for approver, step in decision.code_steps.items():
                _use_code(approver, step, row, self._clock(), session=session)
            row.status, row.closed_at = GateStatus.DECIDED, self._clock()
            session.add(row)
            values = decision.model_dump(exclude={"code_steps"}) | {"decided_at": self._clock()}
            return saved(GateDecision.model_validate(values), GateDecisionPublic, session=session)

    def decision(self, gate_id: int) -> GateDecisionPublic | None:
        """The decision of a gate; None while it waits, and for a void one."""
        with self.snapshot() as session:
            query = select(GateDecision).join(Gate, col(Gate.id) == col(GateDecision.gate_id))
            query = query.where(GateDecision.gate_id == gate_id, Gate.status == GateStatus.DECIDED)
            row = session.exec(query).first()
            return None if row is None else GateDecisionPublic.model_validate(row)

    def gate(self, gate_id: int) -> GatePublic:
        """The gate with this id. Raises BadInputError for none."""
        with self.snapshot() as session:
            row = session.get(Gate, gate_id)
            if row is None:
                raise BadInputError(f"the store holds no gate with id {gate_id}")
            return GatePublic.model_validate(row)

    def gates(self, run_id: str | None = None, *, undecided: bool = False) -> list[GatePublic]:
        """Gates of a run (or of all) in the order in which they opened; only those not decided, if asked."""
        with self.snapshot() as session:
            query = select(Gate).order_by(col(Gate.id))
            if run_id is not None:
                query = query.where(Gate.run_id == run_id)
            if undecided:
                query = query.where(col(Gate.status).in_(UNDECIDED))
            return as_public(session.exec(query).all(), GatePublic)

    def approval_of(self, gate: str, artifact_sha256: str) -> GateDecisionPublic:
        """The approval of exactly this content at a gate; what must stand before anything is built on it.

        Raises:
            GateRefusedError: nobody approved it, or the approval is void.
        """
        with self.snapshot() as session:
            query = select(GateDecision).join(Gate, col(Gate.id) == col(GateDecision.gate_id))
            query = query.where(
                Gate.gate == gate,
                Gate.status == GateStatus.DECIDED,
                GateDecision.artifact_sha256 == artifact_sha256,
                GateDecision.decision == DecisionKind.APPROVE,
            )
            row = session.exec(query.order_by(col(GateDecision.id).desc())).first()
            if row is None:
                raise GateRefusedError(
                    f"no approval at the {gate} gate binds to content {artifact_sha256[:12]}; it was never "
                    "approved, or was changed since. `stagegate gates --all` lists what was decided.",
                    artifact_sha256=artifact_sha256,
                )
            return GateDecisionPublic.model_validate(row)

    def _void(self, row: Gate, reason: str) -> None:
        row.status, row.void_reason, row.closed_at = GateStatus.VOID, reason, self._clock()


def _rounds(run_id: str, gate: str, number: int, *, session: Session) -> Sequence[Gate]:
    query = select(Gate).where(Gate.run_id == run_id, Gate.gate == gate, Gate.number == number)
    return session.exec(query.order_by(col(Gate.round))).all()


def _locked_gate(gate_id: int, *, session: Session) -> Gate:
    row = session.exec(select(Gate).where(Gate.id == gate_id).with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise BadInputError(f"the store holds no gate with id {gate_id}")
    return row


def _refuse_decided(row: Gate, *, session: Session) -> None:
    if row.status is GateStatus.VOID:
        raise GateRefusedError(f"gate {row.gate}-{row.number} is void: {row.void_reason}")
    if row.status is not GateStatus.DECIDED:
        return
    first = session.exec(select(GateDecision).where(GateDecision.gate_id == row.id)).one()
    raise GateRefusedError(
        f"gate {row.gate}-{row.number} was decided already: {first.decision} by {first.approver} at "
        f"{first.decided_at:%Y-%m-%d %H:%M:%S} UTC; the first decision stands",
        approver=first.approver,
        decision=str(first.decision),
    )


def _refuse_mismatch(row: Gate, decision: GateDecisionCreate) -> None:
    differing = [name for name in _SAME_ARTIFACT if getattr(row, name) != getattr(decision, name)]
    if differing:
        raise GateRefusedError(
            f"this decision on gate {row.gate}-{row.number} is about something else than what was shown: "
            f"{', '.join(differing)} differ"
        )
    if decision.decision is DecisionKind.APPROVE and row.failed_checks and not decision.override:
        raise GateRefusedError(
            f"gate {row.gate}-{row.number} has failed machine checks, which cannot be approved away; "
            "iterate, reject, or override with a second approver where the config allows it"
        )


def _use_code(approver: str, step: int, gate: Gate, now: datetime, *, session: Session) -> None:
    query = select(UsedCode).where(UsedCode.approver == approver, UsedCode.step == step)
    if session.exec(query).first() is not None:
        raise GateRefusedError(f"the one-time code of {approver} was used before; wait for the next one")
    session.add(UsedCode(approver=approver, step=step, gate_id=gate.id or 0, used_at=now))
    session.flush()
