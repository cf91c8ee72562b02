"""`stagegate up`, `down` and `status`: the local stack of server, work pools and workers."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.view import wide_console

COLUMNS = {
    "workers": ("worker", "pool", "process", "state", "last heartbeat"),
    "deployments": ("deployment", "pool", "state", "schedules"),
    "flow_runs": ("flow run", "state", "since", "id"),
}


def up(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; needs a password if not loopback.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the server.")] = None,
    devices: Annotated[
        str | None, typer.Option(help="CUDA devices with a worker each, e.g. 0,1; all when left out.")
    ] = None,
    no_workers: Annotated[bool, typer.Option("--no-workers", help="Server and deployments only.")] = False,
) -> None:
    """Bring up server, work pools, deployments and workers; what runs already is left alone.

    Exit 2: --host without STAGEGATE_SERVER_PASSWORD, a port in use, other devices than those that run.
    """
    from deployments import stack

    console = wide_console()
    chosen = [device.strip() for device in (devices or "").split(",") if device.strip()]
    url = stack.up(console, host, port, chosen or None, not no_workers)
    console.print(f"Prefect UI: {url.removesuffix('/api')}   (stop everything with `stagegate down`)")


def down() -> None:
    """End the workers and the server that `stagegate` started here, and nothing else."""
    from deployments import stack

    stack.down(wide_console())


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Show server, workers, deployments, and flow runs that run or wait at a gate. Exit 0 even if none."""
    from deployments.record import read_stack
    from deployments.status import gather

    state = gather(read_stack())
    if as_json:
        typer.echo(json.dumps(state, indent=2))
        return
    _show(state, wide_console())


def _show(state: dict[str, Any], console: Console) -> None:
    console.print(_server_line(state["server"]), markup=False)
    for pool in state["pools"]:
        limit = f"at most {pool['concurrency_limit']} at a time" if pool["concurrency_limit"] else "no limit"
        paused = ", PAUSED: starts nothing" if pool["paused"] else ""
        console.print(f"pool {pool['name']}: {limit}{paused}")
    rows: dict[str, list[tuple[str, ...]]] = {
        "workers": [_worker_row(w) for w in state["workers"]],
        "deployments": [_deployment_row(d) for d in state["deployments"]],
        "flow_runs": [(r["name"], r["state"], r["since"], r["id"]) for r in state["flow_runs"]],
    }
    for kind, columns in COLUMNS.items():
        if rows[kind]:
            console.print(_table(columns, rows[kind]))
        elif state["server"]["healthy"]:
            console.print(f"no {kind.replace('_', ' ')}")


def _server_line(server: dict[str, Any]) -> str:
    if not server["healthy"]:
        return f"server: none answers at {server['url']}; `stagegate up` starts one"
    whose = "started here" if server["started_here"] else "not started here, `stagegate down` leaves it"
    return f"server: {server['url']} is healthy, {whose}"


def _worker_row(worker: dict[str, Any]) -> tuple[str, ...]:
    where = str(worker["pid"]) if worker["started_here"] else "another machine"
    state = "alive" if worker["alive"] else "dead; `stagegate up` starts it again"
    return worker["name"], worker["pool"], where, state, worker["last_heartbeat"] or "unknown"


def _deployment_row(deployment: dict[str, Any]) -> tuple[str, ...]:
    schedules = [
        f"{s['slug']} ({s['when']}) {'on' if s['active'] else 'off'}" for s in deployment["schedules"]
    ]
    state = "paused" if deployment["paused"] else "ready"
    return deployment["name"], deployment["pool"] or "none", state, ", ".join(schedules) or "none"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    return table
