"""Approvers of a run: the rules of its gates, the desk that checks one-time codes, the answers given."""

from __future__ import annotations

from datetime import datetime, timedelta

from core.config import GatesSection
from core.settings import get_settings
from core.store import GateAnswerCreate, Store
from reviews.codes import matching_step, read_secrets, secret_of
from reviews.policy import CodeDesk, GateAnswer, GateRules, Refusal


def rules_of(section: GatesSection) -> GateRules:
    """The rules that a config sets for its gates."""
    return GateRules(
        policy=section.policy,
        approvers=section.approvers,
        require_codes=section.require_codes,
        max_wrong_codes=section.max_wrong_codes,
        allow_override=section.allow_override,
        wait_hours=section.wait_hours,
    )


def code_desk(store: Store, *, moment: datetime) -> CodeDesk:
    """The desk that judges codes as of a moment; a code that was used before is a wrong one."""
    known = read_secrets(get_settings().approvers_file)
    since = moment - timedelta(minutes=CodeDesk.WINDOW_MINUTES)

    def step_of(approver: str, code: str) -> int | None:
        secret = secret_of(approver, known)
        step = None if secret is None else matching_step(secret, code, moment)
        return None if step is None or store.code_is_used(approver, step) else step

    return CodeDesk(step_of, lambda approver: store.wrong_codes(approver, since))


def keep_answer(
    store: Store, gate_id: int, answer: GateAnswer, ask: int, via: str, origin: str, refusal: Refusal | None
) -> None:
    """Record an answer, taken or refused. `ask` 0: it did not come through the form (yet)."""
    store.record_answer(
        GateAnswerCreate(
            gate_id=gate_id,
            ask=ask,
            approver=(refusal.name if refusal else "") or answer.approver,
            decision=answer.decision,
            via=via,
            origin=origin,
            payload_sha256=answer.fingerprint(),
            payload=answer.public(),
            refusal=None if refusal is None else refusal.message,
            refusal_kind=None if refusal is None else refusal.kind,
        )
    )
