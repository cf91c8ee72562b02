"""Parking: at its deadline a gate that nobody has decided says so. It never approves, and stays decidable."""

from __future__ import annotations

from uuid import UUID

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Completed

from core.store import GatePublic, GateStatus
from flows.notices import announce, link_to, schedule_parking
from tasks.bookkeeping import the_store


@flow(name="park")
def park(gate_id: int) -> State[str]:
    """Park a gate whose deadline has passed.

    Args:
        gate_id: the gate's number in the store.
    """
    store = the_store()
    gate = store.gate(gate_id)
    run = store.run(gate.run_id)
    if store.park_gate(gate_id) or gate.status is GateStatus.PARKED:  # parked by a run that died saying so
        text = (
            f"nobody decided gate {gate.key} of {run.name} by {gate.deadline_at:%Y-%m-%d %H:%M} UTC: it is "
            "parked. Nothing was approved; it can still be decided, in the UI or with `stagegate approve`"
        )
        _say_parked(gate, text)
        announce("parked", gate.run_id, gate.key, text, link_to(str(gate.flow_run_id)))
        get_run_logger().warning(text)
        return Completed(name="Parked", message=text)
    if gate.status is GateStatus.WAITING:  # started a little early, or the clock was set back: come again
        schedule_parking(gate.run_id, run.name, gate, asked_by=str(flow_run.id))
        return Completed(name="NotDue", message=f"gate {gate.key} is due at {gate.deadline_at}")
    return Completed(name="NotNeeded", message=f"gate {gate.key} of {run.name} is {gate.status}")


def _say_parked(gate: GatePublic, text: str) -> None:
    """Give the suspended flow run the state `Parked`: still paused, with the same form."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(str(gate.flow_run_id))).state
        except (ObjectNotFound, ValueError):
            return
        if state is not None and state.is_paused():
            parked: State[None] = State(
                type=StateType.PAUSED, name="Parked", message=text, state_details=state.state_details
            )
            client.set_flow_run_state(UUID(str(gate.flow_run_id)), parked, force=True)
