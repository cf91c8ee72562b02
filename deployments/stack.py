"""The stack of a checkout: a server, its pools and deployments, and the workers; up and down.

Not here: what the flows do, and workers on other machines (README.md says how those join).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.console import Console

from core.errors import BadInputError, StagegateError, TransientError
from core.settings import get_settings
from deployments.environment import worker_environment
from deployments.pools import CPU, GPU
from deployments.processes import end, flow_run_ids, marked, start
from deployments.record import Stack, Worker, locked, read_stack, record_path
from deployments.server import client_for, healthy, take_server

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

WORKER_START_TIMEOUT_S = 90.0
FLOW_RUN_GRACE_S = 10.0


@dataclass(frozen=True)
class Place:
    """A worker that should run: its pool, and its device where it has one of its own."""

    pool: str
    device: str | None

    @property
    def name(self) -> str:
        """Name of the worker on the server; the same at every start, so no dead ones pile up there."""
        own = self.pool if self.device is None else f"{self.pool}-{self.device}"
        return f"{own}@{socket.gethostname()}"


def up(console: Console, host: str | None, port: int | None, devices: list[str] | None, workers: bool) -> str:
    """Bring up what does not run yet and say so; the API URL of the server.

    Args:
        host, port: where a server that is started listens.
        devices: CUDA devices with a worker each; None takes those of this machine.
        workers: False leaves workers alone.

    Raises:
        BadInputError: a host without a password, a port in use, other devices than those that run.
        StagegateError, TransientError: something did not start; its log is named.
    """
    with locked(console):
        stack = read_stack()
        places = _places(stack, devices)
        url = take_server(stack, console, host, port)
        client = client_for(url)
        _prepare_server(client, console, len(places) - 1)
        if workers:
            _start_workers(stack, places, client, console)
    return url


def _places(stack: Stack, devices: list[str] | None) -> list[Place]:
    """The workers that should run: one for `cpu`, then those for `gpu`."""
    live = {w.device for w in stack.live_workers if w.pool == GPU}
    chosen: set[str | None] = set(devices) if devices else live or set(cuda_devices()) or {None}
    if live - chosen:
        raise BadInputError(
            f"workers run for {_devices(live)} already, and --devices asks for {_devices(chosen)}; "
            "`stagegate down` ends them, then choose again"
        )
    return [Place(CPU, None), *(Place(GPU, device) for device in sorted(chosen, key=str))]


def _devices(devices: set[str | None]) -> str:
    return ", ".join(sorted("no device" if d is None else f"device {d}" for d in devices))


def cuda_devices() -> list[str]:
    """Indices of the CUDA devices that this process may use; empty without a driver."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device.strip() for device in visible.split(",") if device.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    run = subprocess.run(query, capture_output=True, text=True, check=False)
    return run.stdout.split() if run.returncode == 0 else []


def _prepare_server(client: SyncPrefectClient, console: Console, devices: int) -> None:
    from deployments.notify import ensure_crash_watch
    from deployments.pools import deploy, ensure_pools

    ensure_pools(client, devices)
    ensure_crash_watch(client)
    deploy(client, console)


def _start_workers(stack: Stack, places: list[Place], client: SyncPrefectClient, console: Console) -> None:
    """Start the workers that do not run, and wait until each has reported to the server."""
    known = {worker.name: worker for worker in stack.workers}
    since = datetime.now(UTC)
    started = []
    for place in places:
        worker = known.get(place.name)
        if worker is not None and worker.process.alive:
            continue
        if worker is not None:
            console.print(f"worker {place.name} (process {worker.process.pid}) has died; starting it again")
        started.append(_start_worker(stack, place))
    for worker in started:
        _await_worker(client, worker, since)
    running = ", ".join(f"{w.name} (process {w.process.pid})" for w in stack.workers)
    console.print(f"workers: {running}; {len(started)} started now, {len(places) - len(started)} ran already")


def _start_worker(stack: Stack, place: Place) -> Worker:
    """Start one worker and record it at once, so that `down` finds it whatever comes next."""
    assert stack.api_url is not None
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process"]
    command += ["--pool", place.pool, "--name", place.name, "--install-policy", "never"]
    if place.pool == GPU:
        command += ["--limit", "1"]
    environment = worker_environment(stack.api_url, place.device, stack.mark)
    process = start(command, get_settings().root, _log(place.name), environment)
    worker = Worker(name=place.name, pool=place.pool, device=place.device, process=process)
    stack.workers = [*(w for w in stack.workers if w.name != place.name), worker]
    stack.save()
    return worker


def _log(name: str) -> Path:
    return get_settings().home.absolute() / "logs" / f"worker-{name}.log"


def _await_worker(client: SyncPrefectClient, worker: Worker, since: datetime) -> None:
    """Wait for the first heartbeat after `since`."""
    deadline = time.monotonic() + WORKER_START_TIMEOUT_S
    while time.monotonic() < deadline:
        if not worker.process.alive:
            raise StagegateError(f"worker {worker.name} ended at once; its log is {_log(worker.name)}")
        beats = {w.name: w.last_heartbeat_time for w in client.read_workers_for_work_pool(worker.pool)}
        if (beat := beats.get(worker.name)) is not None and beat >= since:
            return
        time.sleep(0.3)
    raise TransientError(
        f"worker {worker.name} did not report within {WORKER_START_TIMEOUT_S:.0f} s; "
        f"its log is {_log(worker.name)}"
    )


def down(console: Console) -> None:
    """End what `up` started here and nothing else: workers with their flow runs, then the server."""
    with locked(console):
        stack = read_stack()
        processes = marked(stack.mark)
        servers = _server_processes(stack)
        rest = [p for p in processes if p not in servers]
        if not processes:
            console.print("nothing of this checkout is running")
        if rest:
            _end_workers(stack, rest, console)
        if servers:
            end(servers)
            console.print(f"stopped the server at {stack.api_url}")
        elif stack.api_url is not None and healthy(stack.api_url):
            console.print(f"the server at {stack.api_url} was not started here and stays up")
        record_path().unlink(missing_ok=True)


def _server_processes(stack: Stack) -> list[psutil.Process]:
    if stack.server is None or not stack.server.alive:
        return []
    server = psutil.Process(stack.server.pid)
    return [server, *server.children(recursive=True)]


def _end_workers(stack: Stack, processes: list[psutil.Process], console: Console) -> None:
    """End workers and flow runs together; a flow run gets the chance to report that it was ended."""
    runs = flow_run_ids(processes)
    live = len(stack.live_workers)
    killed = end(processes, FLOW_RUN_GRACE_S)
    late = marked(stack.mark)  # what a worker started between the look and its end
    servers = _server_processes(stack)
    killed += end([p for p in late if p not in servers], grace_s=0.0)
    by_force = f", {killed} processes by force after {FLOW_RUN_GRACE_S:.0f} s" if killed else ""
    console.print(f"ended {live} workers{by_force}")
    if runs:
        _report_runs(stack, sorted(runs), console)


def _report_runs(stack: Stack, run_ids: list[str], console: Console) -> None:
    """Say which flow runs were ended; those that could not say so themselves are marked Crashed."""
    console.print(f"ended the flow runs that they worked on ({len(run_ids)}):")
    reachable = stack.api_url is not None and healthy(stack.api_url)
    for run_id in run_ids:
        name = _mark_crashed(client_for(stack.api_url or ""), run_id) if reachable else "name unknown"
        console.print(f"  {name} ({run_id})", markup=False)
    console.print("what they committed is kept: after `stagegate up`, Retry in the UI goes on from there")


def _mark_crashed(client: SyncPrefectClient, run_id: str) -> str:
    """Name of a flow run whose process is gone; its state says so from now on."""
    from uuid import UUID

    from prefect.states import Crashed

    run: FlowRun = client.read_flow_run(UUID(run_id))
    if run.state is not None and not run.state.is_final() and not run.state.is_paused():
        message = "`stagegate down` ended its process. Retry goes on from what was committed."
        client.set_flow_run_state(run.id, Crashed(message=message), force=True)
    return run.name
