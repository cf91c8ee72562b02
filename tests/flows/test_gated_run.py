"""Gated runs on a real stack: waiting, dying, answering, parking, deciding by policy, on a schedule."""

from __future__ import annotations

import json
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest

from core.provenance.manifest import read_manifest, verify
from tests.flows.gated import ITERATION_S, GatedStack
from tests.flows.stack_home import until
from tests.flows.test_notify import Receiver
from tests.reviewer_server import Reply, ReviewerServer, completion, verdict_values

STRICT = {"min_candidates": 5000}
"""Limits that no smoke run can pass: QC says insufficient."""


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every manifest below a run's iterations."""
    found = sorted((folder / "iterations").rglob("manifest.json"))
    return {str(path.relative_to(folder)): read_manifest(path.parent)["self_sha256"] for path in found}


def kill_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=20)


def resume(stack: GatedStack, name: str, **values: Any) -> Any:
    """Answer the form as the UI does it; what the server says."""
    run = stack.flow_run(name)
    with stack.client() as client:
        return client.resume_flow_run(run.id, run_input=values)


def test_waiting_survives_kill_9_of_server_and_workers(gated_stack: GatedStack) -> None:
    """No process of the run is alive while it waits; all killed and restarted, an approval redoes nothing."""
    folder = gated_stack.start("killed")
    gate = gated_stack.waits_at("killed", "pilot-1")
    assert gate["waiting_costs"] == "$0.00"
    until(lambda: not _flow_processes(gated_stack), "no flow run process is alive", 30)
    before = hashes(folder)
    kill_all(gated_stack.processes())
    refused = gated_stack.run("approve", "killed", "-a", "anna", code=1)
    assert "Nothing was decided" in refused and "stagegate up" in refused
    gated_stack.up()
    assert gated_stack.state("killed").name == "Suspended"
    said = gated_stack.run("approve", "killed", "-a", "anna", timeout=240)
    assert "approve by anna" in said
    gated_stack.ends_in("killed", "Approved")
    assert hashes(folder) == before
    assert _task_states(gated_stack, "killed")["iteration-1"] == {"Completed", "Cached"}
    assert len(_children(gated_stack, "killed")) == 1
    assert [link.kind for link in verify(folder)].count("gate") == 1


def _flow_processes(stack: GatedStack) -> list[psutil.Process]:
    from deployments.processes import flow_run_ids

    return [p for p in stack.processes() if flow_run_ids([p])]


def _task_states(stack: GatedStack, name: str) -> dict[str, set[str]]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    run = stack.flow_run(name)
    with stack.client() as client:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    states: dict[str, set[str]] = {}
    for task in tasks:
        states.setdefault(task.name, set()).add(task.state.name)
    return states


def _children(stack: GatedStack, name: str) -> list[Any]:
    with stack.client() as client:
        return [r for r in client.read_flow_runs() if r.name.startswith(f"{name}-")]


def test_of_two_who_decide_at_once_the_first_wins(gated_stack: GatedStack) -> None:
    """Two answers at the same moment: one decision stands, and the other person is told so."""
    gated_stack.start("two")
    gated_stack.waits_at("two", "pilot-1")
    outcomes: dict[str, str] = {}

    def decide(who: str, *arguments: str) -> None:
        outcomes[who] = gated_stack.run("approve", "two", "-a", who, *arguments, code=None)

    threads = [
        threading.Thread(target=decide, args=("anna",)),
        threading.Thread(target=decide, args=("ben", "-d", "reject", "-r", "not good")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = gated_stack.ends_in("two", "Approved", "Rejected")
    winner, loser = ("anna", "ben") if state.name == "Approved" else ("ben", "anna")
    assert f"by {winner}" in outcomes[winner]
    assert "error:" in outcomes[loser], outcomes
    with gated_stack.store() as store:
        gate = store.gates(store.find_run("two").id)[0]
        assert store.decision(gate.id).approver == winner
    closed = gated_stack.run("approve", "two", "-a", loser, code=3)
    assert f"{winner} decided" in closed


def test_wrong_answers_are_refused_and_asked_again(gated_stack: GatedStack) -> None:
    """Wrong or missing codes, stale forms, unknown fields: nothing opens, and the next form says why."""
    from reviews.codes import code_at, read_secrets

    secret = gated_stack.run("approvers", "add", "anna").split("secret of anna: ")[1].split()[0]
    assert read_secrets(gated_stack.home / "approvers.json") == {"anna": secret}
    assert (gated_stack.home / "approvers.json").stat().st_mode & 0o077 == 0
    gated_stack.start(
        "codes", gates={"approvers": ["anna", "ben"], "require_codes": True, "max_wrong_codes": 2}
    )
    gate = gated_stack.waits_at("codes", "pilot-1")
    right = {"decision": "approve", "approver": "anna", "judged": gate["sha256"][:16]}
    for bad in (
        right,  # no code
        {**right, "code": "1", "judged": "0" * 16},  # a form of other bytes
        {**right, "code": "1", "approver": "mallory"},
        {**right, "code": "1", "decision": "go"},
        {**right, "code": "1", "note": "let me in"},
        {**right, "code": "1", "changes": {"response_temperature": 9}},
    ):
        assert resume(gated_stack, "codes", **bad).status.value == "REJECT"
    assert resume(gated_stack, "codes", **right, code="000000").status.value == "ACCEPT"
    until(lambda: len(_answers(gated_stack, "codes")) == 1, "the wrong code is counted", 60)
    gated_stack.waits_at("codes", "pilot-1")
    assert _answers(gated_stack, "codes")[0].refusal_kind == "wrong_code"
    run = gated_stack.flow_run("codes")
    with gated_stack.client() as client:
        keyset = run.state.state_details.run_input_keyset
        form = client.read_flow_run_input(run.id, key=keyset["description"])
    assert "Your last answer was not taken" in str(form)
    said = gated_stack.run("approve", "codes", "-a", "anna", "--code", "111111", code=3)
    assert "wrong, used or out of date" in said
    code = code_at(secret, datetime.now(UTC))
    locked = gated_stack.run("approve", "codes", "-a", "anna", "--code", code, code=3)
    assert "2 wrong codes" in locked
    assert gated_stack.gates("codes")[0]["status"] == "waiting"
    gated_stack.run("approvers", "add", "ben")
    ben = read_secrets(gated_stack.home / "approvers.json")["ben"]
    reject = ("-d", "reject", "-r", "enough seen", "-a", "ben", "--code", code_at(ben, datetime.now(UTC)))
    assert "reject by ben" in gated_stack.run("approve", "codes", *reject)
    gated_stack.ends_in("codes", "Rejected")


def _answers(stack: GatedStack, name: str) -> list[Any]:
    with stack.store() as store:
        gate = store.gates(store.find_run(name).id)[-1]
        return [a for a in store.answers(gate.id) if a.ask]


def test_an_artifact_that_changed_makes_its_approval_void(gated_stack: GatedStack) -> None:
    """The dataset is edited while the gate waits: the approval given for it opens nothing."""
    folder = gated_stack.start("edited")
    gated_stack.waits_at("edited", "pilot-1")
    pairs = folder / "iterations" / "1" / "dataset" / "accepted.jsonl"
    pairs.write_text(pairs.read_text().replace('"response": "', '"response": "x', 1))
    assert "is void" in gated_stack.run("approve", "edited", "-a", "anna", code=3, timeout=240)
    until(lambda: len(gated_stack.gates("edited")) == 2, "a new round is opened", 60)
    gated_stack.waits_at("edited", "pilot-1")
    first, second = gated_stack.gates("edited")
    assert first["status"].startswith("void")
    assert "hash chain" in second["failed_checks"]
    refused = gated_stack.run("approve", "edited", "-a", "anna", code=3)
    assert "hash chain" in refused


def test_a_gate_that_nobody_decides_is_parked_and_stays_decidable(gated_stack: GatedStack) -> None:
    """At its deadline the flow run says Parked; nothing was approved, and a late decision is taken."""
    gated_stack.start("parked", gates={"wait_hours": 0.005})
    until(lambda: gated_stack.flow_run("parked") is not None, "it exists")
    gated_stack.ends_in("parked", "Parked")
    assert "Nothing was approved" in gated_stack.state("parked").message
    assert gated_stack.gates("parked")[0]["status"] == "parked"
    assert "approve by anna" in gated_stack.run("approve", "parked", "-a", "anna")
    gated_stack.ends_in("parked", "Approved")


def test_a_form_that_was_lost_is_asked_again(gated_stack: GatedStack) -> None:
    """Killed after suspending and before its form was stored, a gate says so, and `resume` asks anew."""
    from prefect.states import Cancelled

    gated_stack.start("formless")
    gated_stack.waits_at("formless", "pilot-1")
    run = gated_stack.flow_run("formless")
    with gated_stack.client() as client:
        client.delete_flow_run_input(run.id, key=run.state.state_details.run_input_keyset["schema"])
    assert "`stagegate resume formless` asks again" in gated_stack.run(
        "approve", "formless", "-a", "x", code=3
    )
    _asks_again(gated_stack, "formless")
    with gated_stack.client() as client:  # and once more, after somebody pressed Cancel in the UI
        client.set_flow_run_state(run.id, Cancelled())
    assert "is Cancelled" in gated_stack.run("approve", "formless", "-a", "x", code=3)
    _asks_again(gated_stack, "formless")
    assert "reject by x" in gated_stack.run("approve", "formless", "-a", "x", "-d", "reject", "-r", "enough")
    gated_stack.ends_in("formless", "Rejected")
    assert len(_children(gated_stack, "formless")) == 1


def _asks_again(stack: GatedStack, name: str) -> None:
    runs = stack.flow_run(name).run_count
    stack.run("resume", name)
    until(lambda: stack.flow_run(name).run_count > runs, "it runs again", 60)
    stack.waits_at(name, "pilot-1")


def test_people_are_told_when_a_gate_waits_is_decided_and_when_it_is_parked(gated_stack: GatedStack) -> None:
    """A webhook hears of each of the three, with the run's name and a link to the form."""
    with Receiver() as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        gated_stack.run("notify", "add", "--webhook", receiver.url("here"), "--name", "hook")
        gated_stack.start("told", gates={"wait_hours": 0.005})
        until(lambda: _heard(receiver, "gate pilot-1 of told waits for a decision"), "waiting", ITERATION_S)
        until(lambda: _heard(receiver, "it is parked"), "parked", 120)
        gated_stack.run("approve", "told", "-a", "anna")
        until(lambda: _heard(receiver, "gate pilot-1 of told was decided: approve by anna"), "decided", 60)
        link = f"/v2/runs/flow-run/{gated_stack.flow_run('told').id}"
        assert all(link in got["body"] for got in receiver.got if "told" in got["body"])
        gated_stack.run("notify", "remove", "hook")
        receiver.shutdown()


def _heard(receiver: Receiver, text: str) -> bool:
    return any(text in got["body"] for got in receiver.got)


def test_a_failed_iteration_is_resumed_where_it_stopped(gated_stack: GatedStack) -> None:
    """The process that computes is killed in the middle: the run says which child failed; resume goes on."""
    folder = gated_stack.start("broken")
    journal = folder / "iterations" / "1" / "generation" / "candidates.jsonl"
    until(lambda: journal.exists() and '"kind": "commit"' in journal.read_text(), "a batch", ITERATION_S)
    committed = journal.read_text().partition('"kind": "commit"')[0]
    child = _children(gated_stack, "broken")[0]
    kill_all([p for p in _flow_processes(gated_stack) if _runs(p, str(child.id))])
    state = gated_stack.ends_in("broken", "Failed", "Crashed")
    assert "did not end well" in state.message
    gated_stack.run("resume", "broken")
    gated_stack.waits_at("broken", "pilot-1")
    assert journal.read_text().startswith(committed)
    assert len(_children(gated_stack, "broken")) == 2
    assert "waits for an answer" in gated_stack.run("resume", "broken", code=3)


def _runs(process: psutil.Process, flow_run_id: str) -> bool:
    from deployments.processes import flow_run_ids

    return flow_run_id in flow_run_ids([process])


def fooled(body: dict[str, Any]) -> Reply:
    """A reviewer that says go as soon as it is shown a generated text, and no where it is shown none."""
    shown = '{"instruction":' in body["messages"][-1]["content"]
    return Reply(completion(verdict_values("go" if shown else "no_go")))


def reviewer(url: str, **values: Any) -> dict[str, Any]:
    price = {"input_usd": 1, "output_usd": 2}
    return {"kind": "openai", "model": "judge", "base_url": url, "price": price, **values}


def test_policy_reviewer_opens_the_gate_on_its_own(gated_stack: GatedStack) -> None:
    """Checks passed and the reviewer says go, with and without the samples: approved, reviews on record."""
    with ReviewerServer(lambda _: Reply(completion(verdict_values("go")))) as server:
        folder = gated_stack.start("auto", gates={"policy": "reviewer"}, reviewer=reviewer(server.url))
        until(lambda: gated_stack.flow_run("auto") is not None, "it exists")
        gated_stack.ends_in("auto", "Approved")
    assert {"review-primary.md", "review-blind.md"} <= {p.name for p in (folder / "gates/pilot-1").iterdir()}
    with gated_stack.store() as store:
        run = store.find_run("auto")
        decision = store.decision(store.gates(run.id)[0].id)
        reviews = store.reviews(run_id=run.id)
    assert (decision.via, decision.approver) == ("policy", "policy reviewer")
    assert [r.reviewer for r in reviews] == ["primary", "blind"]
    assert all(r.cost_usd_micros for r in reviews)
    listed = json.loads(gated_stack.run("reviews", "auto", "--json"))
    assert [row["said"] for row in listed] == ["go", "go"]


def test_a_reviewer_swayed_by_generated_text_opens_nothing(gated_stack: GatedStack) -> None:
    """A reviewer that says go once it sees the samples, and no without them, leaves the gate to a person."""
    with ReviewerServer(fooled) as server:
        gated_stack.start("swayed", gates={"policy": "reviewer"}, reviewer=reviewer(server.url))
        gated_stack.waits_at("swayed", "pilot-1")
    assert gated_stack.gates("swayed")[0]["review"] == "primary: go, blind: no_go"


def test_a_reviewer_that_is_down_leaves_the_gate_to_a_person(gated_stack: GatedStack) -> None:
    """No connection, tried again by Prefect, ends as an escalation on the sheet; the run waits."""
    spec = reviewer("http://127.0.0.1:9/v1", timeout_s=2)
    gated_stack.start("alone", gates={"policy": "reviewer"}, reviewer=spec)
    gated_stack.waits_at("alone", "pilot-1")
    assert "primary: escalate" in gated_stack.gates("alone")[0]["review"]


def test_iterations_come_by_cron_and_stop_by_themselves(gated_stack: GatedStack) -> None:
    """Fired each minute, a run iterates with the reviewer's advice, ends, and pauses its own schedule."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    advice = completion(verdict_values("iterate", response_max_new_tokens=60, response_top_p=0.9))
    with ReviewerServer(lambda _: Reply(advice)) as server, gated_stack.client() as client:
        path = gated_stack.config(
            "nightly",
            qc=STRICT,
            gates={"policy": "passing", "max_iterations": 2},
            reviewer=reviewer(server.url),
        )
        values = {"config": str(path), "run_name": "nightly"}
        cron = DeploymentScheduleCreate(
            schedule=CronSchedule(cron="* * * * *"), active=True, parameters=values, slug="each-minute"
        )
        deployment = client.read_deployment_by_name("iterate/iterate")
        schedule = client.create_deployment_schedules(deployment.id, [cron])[0]

        def stopped() -> bool:
            found = client.read_deployment_schedules(deployment.id)
            return not next(s for s in found if s.id == schedule.id).active

        until(stopped, "the schedule pauses itself", 420)
        ended = [r.state.name for r in client.read_flow_runs() if r.name == "iterate nightly" and r.state]
    assert ended.count("NextFiring") == 1
    assert ended.count("Rejected") == 1
    with gated_stack.store() as store:
        run = store.find_run("nightly")
        assert run.status == "rejected"
        assert [i.seed for i in store.iterations(run.id)] == [7, 8]
        assert {o.review_id for o in store.advice_outcomes(run.id)} == {store.reviews(run_id=run.id)[0].id}
    table = gated_stack.run("iterations", "nightly")
    assert "60 *" in table and "insufficient" in table
    first = json.loads(gated_stack.run("reviews", "nightly", "--json"))[0]
    assert (first["advice"], first["taken"]) == ("response_max_new_tokens = 60", "1 of 1")


def test_a_firing_while_somebody_is_asked_starts_nothing(gated_stack: GatedStack) -> None:
    """Two firings for one run: one is cancelled or says that the gate waits; one iteration was made."""
    path = gated_stack.config("twice")
    values = {"config": str(path), "run_name": "twice"}
    with gated_stack.client() as client:
        deployment = client.read_deployment_by_name("iterate/iterate")
        first, second = (
            client.create_flow_run_from_deployment(deployment.id, parameters=values) for _ in range(2)
        )
        until(lambda: _final(client, second.id) or _final(client, first.id), "one ends", ITERATION_S)
        until(
            lambda: [g["status"] for g in gated_stack.gates("twice")] == ["waiting"], "one waits", ITERATION_S
        )
        third = client.create_flow_run_from_deployment(deployment.id, parameters=values)
        until(lambda: _final(client, third.id), "the third ends", ITERATION_S)
        assert client.read_flow_run(third.id).state.name == "Waiting"
        names = {client.read_flow_run(run.id).state.name for run in (first, second)}
    assert names <= {"Suspended", "Cancelled", "Waiting"} and "Suspended" in names
    assert len(_children(gated_stack, "twice")) == 1


def _final(client: Any, run_id: UUID) -> bool:
    state = client.read_flow_run(run_id).state
    return bool(state and state.is_final())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("approve", "no-such-run", "-a", "x"), 2, "no run 'no-such-run'"),
        (("approve", "killed", "-a", "x", "--gate", "pilot-9"), 2, "no gate pilot-9"),
        (("approve", "killed", "-a", "x", "--set", "nonsense"), 2, "parameter=value"),
        (("approve", "killed", "-a", "x", "--set", "response_temperature=.nan"), 2, "neither a number"),
        (("approve", "killed", "-a", "x", "--set", "response_temperature=2026-01-01"), 2, "neither a number"),
        (("run", "configs/smoke.yaml", "--name", "../out"), 2, "run name"),
        (("run", "configs/none.yaml"), 2, "cannot read config"),
        (("run", "configs/smoke.yaml", "--set", "reviewer.kind=openai"), 2, "reviewer.model"),
        (
            ("run", "configs/smoke.yaml", "--set", "reviewer.kind=openai", "--set", "reviewer.model=gpt-9"),
            2,
            "reviewer.price",
        ),
        (("resume", "killed"), 2, "has ended"),
        (("iterations", "examples/none.yaml"), 2, "cannot read"),
    ],
)
def test_mistakes_at_the_command_line_are_answered_in_words(
    gated_stack: GatedStack, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """Each mistake ends with its exit code and a sentence; nothing is decided or started."""
    assert said in gated_stack.run(*arguments, code=code)
