"""The stack as people run it: real server, real workers, real flow runs, in a home of its own."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.processes import marked
from deployments.record import Stack
from deployments.server import healthy
from tests.flows.stack_home import Checkout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    made = Checkout(tmp_path_factory.mktemp("checkout"))
    yield made
    made.run("down")


@pytest.fixture(scope="module")
def first_up(checkout: Checkout) -> list[str]:
    """What two `up`, started at the same time on nothing, said."""
    both = [
        subprocess.Popen(
            checkout.command("up", "--port", str(checkout.port)),
            env=checkout.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    return said


def record(checkout: Checkout) -> Stack:
    return Stack.model_validate_json((checkout.home / "stack.json").read_text())


def pids(checkout: Checkout) -> dict[str, int]:
    stack = record(checkout)
    assert stack.server is not None
    return {"server": stack.server.pid} | {w.pool: w.process.pid for w in stack.workers}


def test_two_ups_at_once_start_one_stack(checkout: Checkout, first_up: list[str]) -> None:
    """Of two `up` at the same time one waits, and there is one server and one worker of each kind."""
    assert sum("waiting for it" in said for said in first_up) == 1
    assert sum("2 started now" in said for said in first_up) == 1
    assert sum("0 started now, 2 ran already" in said for said in first_up) == 1
    leaders = [p for p in marked(record(checkout).mark) if os.getpgid(p.pid) == p.pid]
    assert {p.pid for p in leaders} == set(pids(checkout).values())


def test_a_flow_run_goes_through_the_cpu_pool(checkout: Checkout, first_up: list[str]) -> None:
    """A submitted run completes in the checkout's folder and with its home, both absolute."""
    run_id = checkout.submit("quick")
    checkout.ends_in(run_id, "Completed", "Failed", "Crashed")
    with checkout.client() as client:
        run = client.read_flow_run(run_id)
    assert run.state.name == "Completed"
    assert run.work_pool_name == "cpu"
    log = next((checkout.home / "logs").glob("worker-cpu*.log")).read_text()
    assert "Traceback" not in log


def test_somebody_elses_server_is_used_and_left_running(
    checkout: Checkout, first_up: list[str], tmp_path: Path
) -> None:
    """A server that answers on the port already is taken as it is, and `down` does not touch it."""
    (tmp_path / "other").mkdir()
    guest = Checkout(tmp_path / "other", port=checkout.port)
    assert "starting a Prefect server" not in guest.run("up", "--no-workers", "--port", str(checkout.port))
    assert "not started here" in guest.run("status")
    assert "was not started here and stays up" in guest.run("down")
    assert healthy(checkout.url)


def test_up_repairs_what_was_killed_and_says_so(checkout: Checkout, first_up: list[str]) -> None:
    """A worker killed with SIGKILL is started again, the rest is left as it was."""
    before = pids(checkout)
    os.kill(before["cpu"], signal.SIGKILL)
    assert "dead" in checkout.run("status")
    said = checkout.run("up")
    assert f"(process {before['cpu']}) has died; starting it again" in said
    assert "1 started now, 1 ran already" in said
    after = pids(checkout)
    assert after.pop("cpu") != before.pop("cpu")
    assert after == before


def schedule(checkout: Checkout) -> tuple[Any, Any]:
    with checkout.client() as client:
        deployment = client.read_deployment_by_name("quick/quick")
        return deployment, deployment.schedules[0]


def test_a_schedule_keeps_its_switch_over_a_deployment(checkout: Checkout, first_up: list[str]) -> None:
    """Off as shipped; once switched on, neither a plain `up` nor one after an edit switches it off."""
    before, nightly = schedule(checkout)
    assert nightly.active is False
    with checkout.client() as client:
        client.update_deployment_schedule(before.id, nightly.id, active=True)
        client.pause_deployment(before.id)
    assert "deployments: 3, unchanged" in checkout.run("up")
    with (checkout.folder / "flows" / "probe.py").open("a") as flows:
        flows.write("# edited\n")
    assert "deploying quick, slow, broken" in checkout.run("up")
    after, nightly = schedule(checkout)
    assert after.version != before.version
    assert nightly.active is True
    assert after.paused is True
    with checkout.client() as client:
        client.resume_deployment(before.id)


def test_what_up_sets_up_is_there_once(checkout: Checkout, first_up: list[str]) -> None:
    """Pools with their limits, and one crash automation however often `up` ran."""
    with checkout.client() as client:
        limits = {pool.name: pool.concurrency_limit for pool in client.read_work_pools()}
        assert limits == {"cpu": None, "gpu": 1}
        (watch,) = client.read_automations_by_name("stagegate: crashed")
    assert watch.trigger.after == {"prefect.flow-run.heartbeat"}


def test_other_places_than_the_running_ones_are_refused(checkout: Checkout, first_up: list[str]) -> None:
    """Another port or another host while the server runs is bad input, and changes nothing."""
    before = pids(checkout)
    assert f"listens on 127.0.0.1:{checkout.port} already" in checkout.run("up", "--port", "1", code=2)
    assert "--devices asks for device 0" in checkout.run("up", "--devices", "0", code=2)
    assert pids(checkout) == before


def test_down_ends_everything_of_ours_and_nothing_else(checkout: Checkout, first_up: list[str]) -> None:
    """Workers, their flow runs and the server end; the run is named and becomes Crashed; others live on."""
    run_id = checkout.submit("slow")
    checkout.ends_in(run_id, "Running")
    shown = json.loads(checkout.run("status", "--json"))
    assert [(r["id"], r["state"]) for r in shown["flow_runs"]] == [(str(run_id), "Running")]
    assert {w["pool"]: w["alive"] for w in shown["workers"]} == {"cpu": True, "gpu": True}
    assert all(w["last_heartbeat"] for w in shown["workers"])
    mark = record(checkout).mark
    foreign = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)", "prefect worker"])
    try:
        said = checkout.run("down")
        assert f"({run_id})" in said and "Retry in the UI" in said
        assert marked(mark) == []
        assert not healthy(checkout.url)
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()
    assert "nothing of this checkout is running" in checkout.run("down")
    assert "none answers" in checkout.run("status")
    with sqlite3.connect(checkout.home / "prefect" / "prefect.db") as database:
        states = database.execute("SELECT state_name FROM flow_run WHERE id = ?", (str(run_id),)).fetchall()
    assert states == [("Crashed",)]
