"""`stagegate iterations` and `stagegate reviews`: what was tried, what was advised, what came of it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli.view import wide_console

if TYPE_CHECKING:
    from core.iterations import IterationRecord


def iterations(
    run_key: Annotated[
        str, typer.Argument(metavar="RUN", help="Name or id of a run, or a YAML file of iterations.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Compare a run's iterations: parameters, metrics with bounds, costs, decisions."""
    from core.iterations import comparison_rows

    rows = comparison_rows(_records(run_key))
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    console = wide_console()
    if not rows:
        console.print(f"{run_key} has no iteration yet", markup=False)
        return
    table = Table(title=f"Iterations of {run_key} (* changed)", title_justify="left")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


def _records(run_key: str) -> list[IterationRecord]:
    from core.history import iteration_records
    from core.iterations import read_records
    from core.settings import get_settings
    from core.store import open_store

    path = Path(run_key)
    if path.suffix in (".yaml", ".yml"):
        return read_records(path)
    with open_store(get_settings().store_url) as store:
        return iteration_records(store, store.find_run(run_key).id)


def reviews(
    run_key: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Name or id of a run, or a YAML file; all runs if none."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Show the reviewers' record: what each advised, whether it helped, what it cost."""
    rows = _from_file(Path(run_key)) if run_key and run_key.endswith((".yaml", ".yml")) else _rows(run_key)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    console = wide_console()
    if not rows:
        console.print("no review is recorded")
        return
    table = Table(title="Reviews", title_justify="left")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    console.print(table)
    console.print(_totals(rows), markup=False)


def _rows(run_key: str | None) -> list[dict[str, Any]]:
    from core.history import advice_of, advice_taken
    from core.iterations import dollars
    from core.settings import get_settings
    from core.store import open_store
    from core.tuning import shown

    with open_store(get_settings().store_url) as store:
        run_id = None if run_key is None else store.find_run(run_key).id
        found = []
        for review in store.reviews(run_id=run_id):
            gate = store.gate(review.gate_id)
            outcomes = [o for o in store.advice_outcomes(gate.run_id) if o.review_id == review.id]
            decision = store.decision(gate.id)
            changes = advice_of(review, gate) or {}
            taken, advised = advice_taken(store, review)
            judged = [(o.metric, str(o.effect)) for o in outcomes] if taken else []
            found.append(
                {
                    "run": store.run(gate.run_id).name,
                    "gate": gate.key,
                    "reviewer": review.reviewer,
                    "model": review.model,
                    "said": review.decision,
                    "advice": ", ".join(f"{n} = {shown(v)}" for n, v in changes.items()) or "no change",
                    "decided": str(decision.decision) if decision else "waiting",
                    "taken": f"{taken} of {advised}" if advised and decision else "–",
                    "outcome": _outcome(judged),
                    "tokens": f"{review.input_tokens or '?'} in, {review.output_tokens or '?'} out",
                    "seconds": f"{review.latency_s:.1f}",
                    "cost": dollars(review.cost_usd_micros),
                    "escalation": review.escalation or "",
                }
            )
        return found


def _taken(record: IterationRecord) -> str:
    """How much of the advice before an iteration it took over."""
    advised = record.advised or {}
    same = sum(record.changes.get(name) == value for name, value in advised.items())
    return f"{same} of {len(advised)}" if advised else "–"


def _outcome(effects: list[tuple[str, str]]) -> str:
    parts = []
    for effect in ("better", "worse"):
        names = [metric.replace("_", " ") for metric, found in effects if found == effect]
        if names:
            parts.append(f"{effect}: {', '.join(names)}")
    return "; ".join(parts) or ("no difference" if effects else "–")


def _totals(rows: list[dict[str, Any]]) -> str:
    judged = [row["outcome"] for row in rows if row["outcome"] not in ("–", "no difference")]
    helped = sum("better" in text and "worse" not in text for text in judged)
    hurt = sum("worse" in text and "better" not in text for text in judged)
    mixed = len(judged) - helped - hurt
    plural = "review" if len(rows) == 1 else "reviews"
    return f"{len(rows)} {plural}; advice that was tried: {helped} helped, {hurt} hurt, {mixed} did both"


def _from_file(path: Path) -> list[dict[str, Any]]:
    from core.iterations import movements, read_records
    from core.tuning import shown

    records = read_records(path)
    rows = []
    for before, after in pairwise(records):
        if after.advised is None:
            continue
        moved = movements(before, after)
        rows.append(
            {
                "gate": f"pilot-{before.number}",
                "advice": ", ".join(f"{n} = {shown(v)}" for n, v in after.advised.items()) or "no change",
                "decided": before.decision or "waiting",
                "taken": _taken(after),
                "outcome": _outcome([(m.metric, m.effect) for m in moved]),
            }
        )
    return rows
