"""`stagegate run`, `gates`, `approve`, `resume`: start gated runs, see what waits, decide."""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.view import wide_console
from core.errors import BadInputError, TransientError

WAITING = 4


def run(
    config: Annotated[Path, typer.Argument(help="Run config, e.g. configs/demo.yaml.")],
    name: Annotated[str | None, typer.Option(help="Run name; that of a stopped run goes on with it.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a value: section.key=value.")
    ] = None,
) -> None:
    """Start a gated pilot on the local stack; it waits at its gate for a person. Exit 4: it is started."""
    from core.config import load_config

    checked = load_config(config, overrides or [])
    url = _existing_server()
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    from flows.answers import reachable
    from flows.notices import link_to
    from tasks.gated_run import named_config, run_name_for
    from tasks.reviewing import reviewers_for

    reviewers_for(checked.reviewer, "pilot")
    named_config(checked, name or checked.run.name)
    values = {"config": _for_worker(config), "run_name": name or "", "overrides": overrides or []}
    with reachable():
        try:
            started: Any = run_deployment(
                "pilot/pilot",
                parameters=values,
                timeout=0,
                as_subflow=False,
            )
        except ObjectNotFound as error:
            raise BadInputError(f"the server at {url} has no deployment pilot; run `stagegate up`") from error
    console = wide_console()
    shown = run_name_for(started.parameters, str(started.id))
    console.print(f"started run {shown}; watch it and decide at {link_to(str(started.id))}", markup=False)
    console.print(f"or: stagegate gates, then stagegate approve {shown}", markup=False)
    raise typer.Exit(WAITING)


def _for_worker(config: Path) -> str:
    """The config's path as a worker finds it: relative inside the checkout, which every worker has."""
    from core.settings import get_settings

    root, path = get_settings().root.resolve(), config.resolve()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def gates(
    everything: Annotated[bool, typer.Option("--all", help="Decided and void gates, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """List gates that wait: since when, until when, what waiting costs (nothing), and where to decide."""
    rows = _gate_rows(undecided=not everything)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    console = wide_console()
    if not rows:
        console.print("no gate waits" if not everything else "there is no gate yet")
        return
    table = Table(title="Gates", title_justify="left")
    for column in (
        "run",
        "gate",
        "status",
        "since",
        "parks at",
        "failed checks",
        "review",
        "decision",
        "costs",
    ):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(row[key]) for key in _SHOWN))
    console.print(table)
    for row in rows:
        if row["link"] and not row["decision"]:
            console.print(f"{row['run']} {row['gate']}: {row['link']}", markup=False)


_SHOWN = (
    "run",
    "gate",
    "status",
    "since",
    "parks_at",
    "failed_checks",
    "review",
    "decision",
    "waiting_costs",
)


def _gate_rows(*, undecided: bool) -> list[dict[str, str]]:
    from core.settings import get_settings
    from core.store import open_store

    now = datetime.now(UTC)
    ui = _known_ui()
    with open_store(get_settings().store_url) as store:
        rows = []
        for gate in store.gates(undecided=undecided):
            decision = store.decision(gate.id)
            reviews = {review.reviewer: review.decision for review in store.reviews(gate_id=gate.id)}
            rows.append(
                {
                    "run": store.run(gate.run_id).name,
                    "gate": gate.key,
                    "status": str(gate.status) + (f": {gate.void_reason}" if gate.void_reason else ""),
                    "since": _ago(gate.waiting_at, now),
                    "parks_at": f"{gate.deadline_at:%Y-%m-%d %H:%M} UTC" if gate.deadline_at else "",
                    "failed_checks": ", ".join(gate.failed_checks) or "none",
                    "review": ", ".join(f"{who}: {said}" for who, said in reviews.items()) or "none",
                    "decision": f"{decision.decision} by {decision.approver}" if decision else "",
                    "waiting_costs": "$0.00",
                    "sha256": gate.artifact_sha256,
                    "link": f"{ui}/v2/runs/flow-run/{gate.flow_run_id}" if ui and gate.flow_run_id else "",
                }
            )
        return rows


def _ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "not waiting"
    minutes = max(0.0, (now - moment).total_seconds() / 60)
    ago = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    return f"{moment:%Y-%m-%d %H:%M} UTC ({ago})"


def approve(
    run_key: Annotated[str, typer.Argument(metavar="RUN", help="Name or id of the run.")],
    decision: Annotated[
        str, typer.Option("--decision", "-d", help="approve, iterate or reject.")
    ] = "approve",
    reason: Annotated[str, typer.Option("--reason", "-r", help="Needed but for a plain approve.")] = "",
    approver: Annotated[str, typer.Option("--approver", "-a", help="Who decides.")] = "",
    code: Annotated[str, typer.Option("--code", help="One-time code, where codes are required.")] = "",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="For iterate: response_temperature=0.3 and the like.")
    ] = None,
    proposal: Annotated[
        bool,
        typer.Option("--proposal/--no-proposal", help="For iterate: begin with the reviewer's proposal."),
    ] = True,
    override: Annotated[bool, typer.Option("--override", help="Approve against failed checks.")] = False,
    second: Annotated[str, typer.Option("--second-approver", help="Needed for an override.")] = "",
    second_code: Annotated[str, typer.Option("--second-code", help="The second person's code.")] = "",
    gate: Annotated[str | None, typer.Option("--gate", help="Such as pilot-2; the one that waits.")] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="Decide only if what is judged begins with this hash.")
    ] = None,
) -> None:
    """Decide a gate that waits: approve, iterate or reject. Exit 3: not taken, with the reason."""
    wanted = _parse_changes(changes or [])
    _existing_server()
    from flows.answers import open_gate_of, submit_answer
    from reviews.policy import GateAnswer

    waiting = open_gate_of(run_key, gate)
    _refuse_stale(sha256, waiting.gate.artifact_sha256)
    start = waiting.proposal if proposal and decision == "iterate" else {}
    answer = GateAnswer(
        decision=decision,
        reason=reason,
        approver=approver or os.environ.get("USER", "") if not waiting.config.gates.approvers else approver,
        code=code,
        override=override,
        second_approver=second,
        second_code=second_code,
        changes={**start, **wanted},
    )
    recorded = submit_answer(waiting, answer, via="cli")
    console = wide_console()
    if recorded is None:
        console.print(
            f"handed to Prefect, but not recorded yet: is a worker running? (`stagegate status`) "
            f"It will be taken when one picks up gate {waiting.gate.key}.",
            markup=False,
        )
        raise typer.Exit(WAITING)
    listed = ", ".join(f"{name} = {value}" for name, value in recorded.changes.items())
    console.print(
        f"gate {waiting.gate.key} of {waiting.run.name}: {recorded.decision} by {recorded.approver}, bound "
        f"to {recorded.artifact_sha256[:16]}" + (f"; changes: {listed}" if listed else ""),
        markup=False,
    )


def _parse_changes(items: list[str]) -> dict[str, Any]:
    import yaml

    changes: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise BadInputError(f"--set {item!r} is not of the form parameter=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = None
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise BadInputError(f"--set {name}: {text!r} is neither a number nor true or false")
        changes[name.strip()] = value
    return changes


def _refuse_stale(given: str | None, found: str) -> None:
    from core.errors import GateRefusedError

    if given is not None and not (given and found.startswith(given.lower())):
        raise GateRefusedError(
            f"what is judged has sha256 {found[:16]}, not {given}: it changed since you looked, or is "
            "another gate's. Nothing was decided; look again with `stagegate gates`"
        )


def resume(run_key: Annotated[str, typer.Argument(metavar="RUN", help="Name or id of the run.")]) -> None:
    """Have a run that failed, crashed or lost its form go on from what is recorded."""
    _existing_server()
    from flows.answers import retry_flow_run
    from flows.notices import link_to

    found, flow_run_id = retry_flow_run(run_key)
    wide_console().print(f"run {found.name} goes on: {link_to(flow_run_id)}", markup=False)


def _existing_server() -> str:
    """API URL of the server that is there; none is started to answer a gate that it does not know.

    Raises:
        TransientError: it does not answer.
    """
    from deployments.record import read_stack
    from deployments.server import api_url, healthy, point_at

    url = os.environ.get("PREFECT_API_URL") or read_stack().api_url or api_url("127.0.0.1", 4200)
    if not healthy(url):
        raise TransientError(
            f"no Prefect server answers at {url}. Nothing was decided and nothing is lost: start it "
            "with `stagegate up`, then try again"
        )
    point_at(url)
    return url


def _known_ui() -> str | None:
    from deployments.record import read_stack

    url = os.environ.get("PREFECT_API_URL") or read_stack().api_url
    return url.removesuffix("/api") if url else None
