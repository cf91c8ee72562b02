"""Answering a gate from outside the UI: for `stagegate approve` and for code.

An answer is checked first, then handed to Prefect, which lets exactly one through; the flow run that wakes up
checks it again and records the decision. Whoever comes second is told who was first.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL
from prefect.states import AwaitingRetry, Failed
from pydantic import ValidationError

from core.config import RunConfig, parse_yaml
from core.errors import BadInputError, GateRefusedError, TransientError
from core.history import iteration_config
from core.store import GateDecisionPublic, GatePublic, GateStatus, PipelineRunPublic, Store
from core.tuning import TuningValue, tuning_of
from flows.forms import SHA_DIGITS, answer_of, gate_form
from reviews.policy import GateAnswer, GateRules, Refusal, judge_answer
from reviews.question import GateFacts
from tasks.approvers import code_desk, keep_answer, rules_of
from tasks.bookkeeping import the_store

WAIT_S = 90.0
POLL_S = 0.5


@dataclass(frozen=True)
class OpenGate:
    """A gate that somebody may answer, with all that is needed to do so."""

    gate: GatePublic
    run: PipelineRunPublic
    config: RunConfig

    @property
    def facts(self) -> GateFacts:
        """What an answer is judged by."""
        left = max(0, self.config.gates.max_iterations - self.gate.number)
        return GateFacts(self.gate.number, tuple(self.gate.failed_checks), left)

    @property
    def current(self) -> dict[str, TuningValue]:
        """Tunable values in force at this gate."""
        return tuning_of(self.config)

    @property
    def rules(self) -> GateRules:
        """How this gate is decided."""
        return rules_of(self.config.gates)

    @property
    def proposal(self) -> dict[str, TuningValue]:
        """What the reviewer proposes to change; what the form is filled with."""
        return dict(self.gate.shown.get("proposal", {}))

    @cached_property
    def form(self) -> type[RunInput]:
        """The form that people see in the UI; its fields are what an answer may hold."""
        sha256 = self.gate.artifact_sha256
        return gate_form(self.facts, self.rules, sha256, self.current, self.proposal)


def open_gate_of(run_key: str, gate_key: str | None = None) -> OpenGate:
    """The gate of a run that waits for an answer.

    Args:
        run_key: name, id or start of the id of the run. gate_key: such as `pilot-2`; needed if several wait.

    Raises:
        BadInputError: no such run or gate.
        GateRefusedError: nothing waits; says what was decided last and by whom.
    """
    store = the_store()
    run = store.find_run(run_key)
    waiting = [g for g in store.gates(run.id, undecided=True) if gate_key in (None, g.key)]
    if not waiting:
        raise _nothing_waits(store, run, gate_key)
    gate = waiting[-1]
    if gate.status is GateStatus.OPEN or gate.flow_run_id is None:
        raise GateRefusedError(f"gate {gate.key} of {run.name} is being prepared; nobody is asked yet")
    config = iteration_config(store, run.id, parse_yaml(run.config_yaml), gate.number)
    return OpenGate(gate, run, config)


def _nothing_waits(store: Store, run: PipelineRunPublic, gate_key: str | None) -> Exception:
    known = [g for g in store.gates(run.id) if gate_key in (None, g.key)]
    if not known:
        keys = ", ".join(g.key for g in store.gates(run.id)) or "none yet"
        what = f"gate {gate_key}" if gate_key else "gate"
        return BadInputError(f"run {run.name} has no {what}; its gates: {keys}")
    last = known[-1]
    decision = store.decision(last.id)
    if decision is None:
        return GateRefusedError(f"gate {last.key} of {run.name} is {last.status}: {last.void_reason}")
    return GateRefusedError(
        f"nothing was decided by you: gate {last.key} of {run.name} is closed; {decision.approver} decided "
        f"{decision.decision} at {decision.decided_at:%Y-%m-%d %H:%M:%S} UTC, and the first decision stands",
        approver=decision.approver,
        decision=str(decision.decision),
    )


def submit_answer(
    waiting: OpenGate, answer: GateAnswer, *, via: str = "code", wait_s: float = WAIT_S
) -> GateDecisionPublic | None:
    """Answer a gate; the recorded decision, or None when it was not recorded within `wait_s` seconds.

    Raises:
        GateRefusedError: the answer was refused, or somebody was faster; the message says which.
        TransientError: the Prefect server does not answer. Nothing was decided, nothing is lost.
    """
    if answer.decision == "iterate":
        answer = replace(answer, changes={**waiting.current, **answer.changes})
    origin = f"{getpass.getuser()}@{socket.gethostname()}"
    store = the_store()
    desk = code_desk(store, moment=datetime.now(UTC))
    judged = judge_answer(answer, waiting.facts, waiting.rules, waiting.config, desk)
    if isinstance(judged, Refusal):
        keep_answer(store, waiting.gate.id, answer, 0, via, origin, judged)
        raise GateRefusedError(judged.message)
    payload = _payload(waiting, answer)
    received = _as_received(waiting, payload)
    with reachable() as client:
        run = _paused_run(client, waiting)
        ticket = Refusal("submitted", "handed to Prefect")
        keep_answer(store, waiting.gate.id, received, 0, via, origin, ticket)
        result = client.resume_flow_run(run.id, run_input=payload)
    if result.status is not SetStateStatus.ACCEPT:
        raise _not_resumed(store, waiting, str(getattr(result.details, "reason", "")))
    return _recorded(store, waiting.gate, wait_s)


def _payload(waiting: OpenGate, answer: GateAnswer) -> dict[str, Any]:
    """The answer in the fields that this gate's form has."""
    approvers = waiting.rules.approvers
    values: dict[str, Any] = {
        "decision": answer.decision,
        "reason": answer.reason,
        "approver": _as_listed(answer.approver, approvers),
        "code": answer.code,
        "override": answer.override,
        "second_approver": _as_listed(answer.second_approver, approvers) or None,
        "second_code": answer.second_code,
        "judged": waiting.gate.artifact_sha256[:SHA_DIGITS],
    }
    if answer.decision == "iterate":
        values["changes"] = dict(answer.changes)
    return {name: value for name, value in values.items() if name in waiting.form.model_fields}


def _as_listed(name: str, approvers: tuple[str, ...]) -> str:
    return next((known for known in approvers if known.casefold() == name.casefold()), name)


def _as_received(waiting: OpenGate, payload: Mapping[str, Any]) -> GateAnswer:
    """The answer as the flow run will read it, so that its ticket is recognised.

    Raises:
        GateRefusedError: the form does not take it; says which fields.
    """
    try:
        return answer_of(waiting.form.model_validate(payload))
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise GateRefusedError(f"the form of gate {waiting.gate.key} does not take this: {fields}") from error


@contextmanager
def reachable() -> Iterator[SyncPrefectClient]:
    """A Prefect client.

    Raises:
        TransientError: its server is not there, or refuses what two people ask of it at once.
    """
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.TransportError as error:
        raise _unreachable(error) from error
    except PrefectHTTPStatusError as error:
        raise TransientError(
            f"the Prefect server refused the answer with HTTP {error.response.status_code}; nothing was "
            "decided by it. If two people answered at once, the other was first: `stagegate gates --all`"
        ) from error


def _unreachable(error: BaseException) -> TransientError:
    return TransientError(
        f"the Prefect server at {PREFECT_API_URL.value()} does not answer ({type(error).__name__}). Nothing "
        "was decided and nothing is lost: start it with `stagegate up`, then answer again"
    )


def _paused_run(client: SyncPrefectClient, waiting: OpenGate) -> FlowRun:
    try:
        run = client.read_flow_run(UUID(str(waiting.gate.flow_run_id)))
    except ObjectNotFound as error:
        raise GateRefusedError(
            f"the flow run that waits at gate {waiting.gate.key} is not on this Prefect server; start it "
            f"again with `stagegate run CONFIG --name {waiting.run.name}`: it goes on at this gate"
        ) from error
    if run.state is None or not run.state.is_paused():
        name = "no state" if run.state is None else run.state.name
        raise GateRefusedError(
            f"gate {waiting.gate.key} of {waiting.run.name} cannot be answered now: its flow run is {name}, "
            "not suspended. Somebody may have answered a moment ago (`stagegate gates`); if it crashed, "
            f"`stagegate resume {waiting.run.name}` asks again"
        )
    return run


def _not_resumed(store: Store, waiting: OpenGate, reason: str) -> Exception:
    if store.decision(waiting.gate.id) is not None:
        return _nothing_waits(store, waiting.run, waiting.gate.key)
    if "schema not found" in reason:
        return GateRefusedError(
            f"gate {waiting.gate.key} was interrupted before its form was stored; "
            f"`stagegate resume {waiting.run.name}` asks again"
        )
    if "not paused" in reason:
        return GateRefusedError(
            f"nothing was decided by you: somebody answered gate {waiting.gate.key} of {waiting.run.name} a "
            "moment before; `stagegate gates --all` shows what"
        )
    return GateRefusedError(f"Prefect refused this answer to gate {waiting.gate.key}: {reason}")


def _recorded(store: Store, gate: GatePublic, wait_s: float) -> GateDecisionPublic | None:
    """Wait until the flow run has recorded the decision, or refused the answer."""
    refused = len([a for a in store.answers(gate.id) if a.ask])
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if decision := store.decision(gate.id):
            return decision
        if (now := store.gate(gate.id)).status is GateStatus.VOID:
            raise GateRefusedError(
                f"nothing was decided: gate {gate.key} is void, because {now.void_reason}; what there is now "
                "is asked anew"
            )
        later = [a for a in store.answers(gate.id) if a.ask][refused:]
        if later and later[-1].refusal:
            raise GateRefusedError(later[-1].refusal)
        time.sleep(POLL_S)
    return None


def retry_flow_run(run_key: str) -> tuple[PipelineRunPublic, str]:
    """Have a run's stopped flow run go on from what is recorded; the run, and what was done.

    Raises:
        GateRefusedError: it is at work, or waits for an answer and can take one.
        BadInputError: it has ended, or was never run through Prefect.
    """
    store = the_store()
    run = store.find_run(run_key)
    if run.flow_run_id is None:
        raise BadInputError(f"run {run.name} was not started through Prefect; run its command again")
    # Who waits at a gate goes on there; a later flow run of the same name may only have been told so.
    waiting = [gate.flow_run_id for gate in store.gates(run.id, undecided=True) if gate.flow_run_id]
    with reachable() as client:
        try:
            flow_run = client.read_flow_run(UUID(waiting[-1] if waiting else run.flow_run_id))
        except ObjectNotFound as error:
            raise BadInputError(
                f"the flow run of {run.name} is not on this server; `stagegate run CONFIG --name {run.name}`"
            ) from error
        _refuse_retry(client, run, flow_run)
        _retry(client, flow_run)
    return run, str(flow_run.id)


def _retry(client: SyncPrefectClient, flow_run: FlowRun) -> None:
    """Schedule the flow run again. Prefect's own rules forget its pause keys, so that it can ask anew.

    An answer that was given just before a crash is still there and must not be forgotten: then the rules are
    left out, and the flow run reads it.
    """
    answered = _has_input(client, flow_run, "response")
    if not answered and flow_run.state is not None and flow_run.state.is_paused():
        client.set_flow_run_state(flow_run.id, Failed(message="its form was lost; it is asked again"))
    again: State[Any] = AwaitingRetry(scheduled_time=datetime.now(UTC))
    client.set_flow_run_state(flow_run.id, again, force=answered)


def _refuse_retry(client: SyncPrefectClient, run: PipelineRunPublic, flow_run: FlowRun) -> None:
    state = flow_run.state
    if state is None or state.is_failed() or state.is_crashed() or state.is_cancelled():
        return
    if state.is_paused() and not _has_input(client, flow_run, "schema"):
        return
    if state.is_completed():
        raise BadInputError(
            f"run {run.name} has ended ({state.name}): {state.message or 'nothing to resume'}"
        )
    if state.is_paused():
        raise GateRefusedError(
            f"run {run.name} waits for an answer; give it with `stagegate approve {run.name}`"
        )
    raise GateRefusedError(f"run {run.name} is {state.name} already; there is nothing to resume")


def _has_input(client: SyncPrefectClient, flow_run: FlowRun, part: str) -> bool:
    """Whether the `schema` or the `response` of the form that was asked last is stored."""
    paused = [state for state in client.read_flow_run_states(flow_run.id) if state.is_paused()]
    keyset = paused[-1].state_details.run_input_keyset if paused else None
    if not keyset:
        return False
    try:
        client.read_flow_run_input(flow_run.id, key=keyset[part])
    except (ObjectNotFound, PrefectHTTPStatusError):
        return False
    return True
