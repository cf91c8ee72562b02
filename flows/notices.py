"""What a gate tells the outside: events for notifications, links into the UI, and the run that parks it."""

from __future__ import annotations

from typing import Literal

from prefect import get_run_logger
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

from core.store import GatePublic

PARK_DEPLOYMENT = "park/park"


def ui_url() -> str:
    """Address of the Prefect UI, without a slash at its end."""
    return (PREFECT_UI_URL.value() or str(PREFECT_API_URL.value()).removesuffix("/api")).rstrip("/")


def link_to(flow_run_id: str) -> str:
    """Address of a flow run in the UI in which a gate's form is good to read."""
    return f"{ui_url()}/v2/runs/flow-run/{flow_run_id}"


def announce(
    what: Literal["waiting", "decided", "parked"], run_id: str, key: str, message: str, link: str
) -> None:
    """Emit `stagegate.gate.waiting`, `.decided` or `.parked`; automations turn it into notifications."""
    emit_event(
        f"stagegate.gate.{what}",
        resource={
            "prefect.resource.id": f"stagegate.gate.{run_id}.{key}",
            "prefect.resource.name": key,
            "stagegate.link": link,
        },
        payload={"message": message, "link": link},
    )


def schedule_parking(run_id: str, run_name: str, gate: GatePublic, *, asked_by: str = "gate") -> None:
    """Have Prefect run `park` at the gate's deadline; once for each who asks for it."""
    try:
        run_deployment(
            PARK_DEPLOYMENT,
            parameters={"gate_id": gate.id},
            scheduled_time=gate.deadline_at,
            timeout=0,
            as_subflow=False,
            flow_run_name=f"park {run_name} {gate.key}",
            idempotency_key=f"park:{run_id}:{gate.id}:{gate.deadline_at}:{asked_by}",
        )
    except ObjectNotFound:
        get_run_logger().warning(
            "deployment %s is missing, so gate %s will wait without being parked; `stagegate up` deploys it",
            PARK_DEPLOYMENT,
            gate.key,
        )
