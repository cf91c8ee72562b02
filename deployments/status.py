"""What runs: from the record and the process table, and from the server where it answers."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deployments.pools import CPU, GPU, TAG
from deployments.record import Stack, Worker
from deployments.server import HOST, PORT, api_url, client_for, healthy

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

MAX_RUNS = 200


def gather(stack: Stack) -> dict[str, Any]:
    """Server, workers, deployments, and flow runs that run or wait, as plain values.

    Where no server answers, only what the record says; the other lists are empty.
    """
    url = os.environ.get("PREFECT_API_URL") or stack.api_url or api_url(HOST, stack.port or PORT)
    ours = stack.server is not None and stack.server.alive and url == stack.api_url
    answers = healthy(url)
    state: dict[str, Any] = {
        "server": {"url": url, "healthy": answers, "started_here": ours},
        "pools": [],
        "workers": [_worker(worker) for worker in stack.workers],
        "deployments": [],
        "flow_runs": [],
    }
    return state | (_from_server(url, state["workers"]) if answers else {})


def _worker(worker: Worker) -> dict[str, Any]:
    return {
        "name": worker.name,
        "pool": worker.pool,
        "pid": worker.process.pid,
        "alive": worker.process.alive,
        "started_here": True,
        "last_heartbeat": None,
    }


def _from_server(url: str, workers: list[dict[str, Any]]) -> dict[str, Any]:
    client = client_for(url)
    pools = _pools(client)
    return {
        "pools": pools,
        "workers": _merged(workers, [pool["name"] for pool in pools], client),
        "deployments": _deployments(client),
        "flow_runs": _flow_runs(client),
    }


def _pools(client: SyncPrefectClient) -> list[dict[str, Any]]:
    found = {pool.name: pool for pool in client.read_work_pools()}
    return [
        {"name": name, "paused": pool.is_paused, "concurrency_limit": pool.concurrency_limit}
        for name in (CPU, GPU)
        if (pool := found.get(name)) is not None
    ]


def _merged(ours: list[dict[str, Any]], pools: list[str], client: SyncPrefectClient) -> list[dict[str, Any]]:
    """Our workers with their heartbeats, then those of other machines that the server holds for online."""
    reported = {(pool, w.name): w for pool in pools for w in client.read_workers_for_work_pool(pool)}
    for worker in ours:
        if (known := reported.pop((worker["pool"], worker["name"]), None)) is not None:
            worker["last_heartbeat"] = _time(known.last_heartbeat_time)
    return ours + [
        {
            "name": name,
            "pool": pool,
            "pid": None,
            "alive": True,
            "started_here": False,
            "last_heartbeat": _time(worker.last_heartbeat_time),
        }
        for (pool, name), worker in reported.items()
        if worker.status == "ONLINE"
    ]


def _deployments(client: SyncPrefectClient) -> list[dict[str, Any]]:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    return [
        {
            "name": deployment.name,
            "pool": deployment.work_pool_name,
            "paused": deployment.paused,
            "schedules": [
                {"slug": s.slug, "when": _when(s.schedule), "active": s.active} for s in deployment.schedules
            ],
        }
        for deployment in sorted(client.read_deployments(deployment_filter=ours), key=lambda d: d.name)
    ]


def _when(schedule: Any) -> str:
    return str(getattr(schedule, "cron", None) or getattr(schedule, "interval", None) or schedule)


def _flow_runs(client: SyncPrefectClient) -> list[dict[str, Any]]:
    """Flow runs that have begun and not ended, the oldest state first."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    begun = [StateType.RUNNING, StateType.PENDING, StateType.PAUSED, StateType.CANCELLING]
    wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=begun)))
    found = client.read_flow_runs(flow_run_filter=wanted, limit=MAX_RUNS)
    rows = [
        {"id": str(run.id), "name": run.name, "state": run.state.name, "since": _time(run.state.timestamp)}
        for run in found
        if run.state is not None
    ]
    return sorted(rows, key=lambda row: row["since"] or "")


def _time(value: datetime | None) -> str | None:
    """UTC, to the second."""
    return value.astimezone(UTC).isoformat(timespec="seconds") if value is not None else None
