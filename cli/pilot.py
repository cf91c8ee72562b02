"""`stagegate pilot`: run the pilot flow here, watch it, and see what came out."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from core.config import RunConfig, load_config

SHOWN_PAIRS = 5
PLAIN_WIDTH = 140


def pilot(
    config: Annotated[Path, typer.Argument(help="Run config, e.g. configs/demo.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a value: section.key=value.")
    ] = None,
) -> None:
    """Write, criticise, filter and judge a pilot dataset. Run again to resume.

    Exit 0: QC passed. 3: QC failed or has too little to go on, or the model is not clean. 2: bad input.
    """
    values = load_config(config, overrides or [])
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=PLAIN_WIDTH)
    started = time.monotonic()
    outcome = run_here(values, console)
    show(outcome, console)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    took = time.monotonic() - started
    console.print(f"\n{took / 60:.1f} minutes, peak memory {peak_gib:.1f} GiB")
    if outcome["summary"]["verdict"] != "pass":
        raise typer.Exit(3)


def run_here(config: RunConfig, console: Console) -> dict[str, Any]:
    """Run the flow in this process against a Prefect server, with a live view.

    In this process, so that interrupting or killing the command is what stops the work.
    """
    from deployments.environment import prefect_environment
    from deployments.server import ensure_server

    os.environ.update(prefect_environment())
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    # Prefect's log lines go to its server; here they would cut through the progress view.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    url = ensure_server(console)
    os.environ["PREFECT_API_URL"] = url
    from cli.view import view_for
    from core.progress import listening
    from flows.iteration import pilot_iteration as flow

    ui = url.removesuffix("/api")
    console.print(f"watch it in the Prefect UI: {ui}/runs   (a progress bar is under Artifacts)")
    view = view_for(console)
    with view, listening(view):
        outcome: dict[str, Any] = flow(config)
    console.print(f"in the Prefect UI: {ui}/artifacts/key/qc-table and {ui}/artifacts/key/qc-verdict")
    return outcome


def show(outcome: dict[str, Any], console: Console) -> None:
    """Verdict, QC table, funnel, critics, and a few accepted pairs."""
    summary = outcome["summary"]
    _show_critics(outcome["certificates"], console)
    _show_funnel(summary["funnel"], console)
    console.print(_metric_table(summary["metrics"]))
    _show_pairs(summary["kept_samples"][:SHOWN_PAIRS], console)
    color = {"pass": "green", "fail": "red"}.get(summary["verdict"], "yellow")
    console.print(f"\nQC verdict: [bold {color}]{summary['verdict']}[/]")
    for reason in summary["reasons"]:
        console.print(f"  - {reason}", markup=False)
    console.print(f"dataset: {outcome['dataset']}\nreport:  {outcome['report']}", markup=False)
    console.print(f"check it: stagegate verify {outcome['folder']}", markup=False)


def _show_critics(certificates: dict[str, Any], console: Console) -> None:
    table = Table(title="Critics", title_justify="left")
    for column in (
        "subject",
        "kind",
        "AUROC (95 % CI)",
        "margin",
        "precision",
        "recall",
        "verdict",
    ):
        table.add_column(column)
    for subject, entry in certificates.items():
        for tried in entry["tried"]:
            chosen = tried["kind"] == entry["chosen"]["kind"]
            table.add_row(
                subject,
                tried["kind"] + (" (chosen)" if chosen else ""),
                f"{tried['auroc']:.3f} ({tried['auroc_low']:.3f} to {tried['auroc_high']:.3f})",
                f"{tried['margin_nats']:.2f} nat",
                f"{100 * tried['precision_ratio']:.0f} %",
                f"{100 * tried['recall_ratio']:.0f} %",
                tried["verdict"],
            )
    console.print(table)


def _show_funnel(funnel: dict[str, Any], console: Console) -> None:
    def lost(reasons: dict[str, int]) -> str:
        worst = sorted(reasons.items(), key=lambda item: -item[1])
        return ", ".join(f"{count} {reason}" for reason, count in worst) or "none"

    f = funnel
    console.print(
        f"{f['instruction_candidates']} instruction candidates -> {f['instructions_accepted']} accepted "
        f"(lost: {lost(f['instruction_rejections'])})\n"
        f"{f['response_candidates']} response candidates -> {f['pairs_accepted']} accepted "
        f"(lost: {lost(f['response_rejections'])})",
        markup=False,
    )


def _metric_table(metrics: dict[str, Any]) -> Table:
    colors = {"pass": "green", "warn": "yellow", "fail": "red", "insufficient": "yellow"}
    table = Table(title="QC", title_justify="left")
    for column in ("metric", "count", "value", "95 % bound", "limit", "verdict"):
        table.add_column(column)
    for name, metric in metrics.items():
        counted = "" if metric["numerator"] is None else f"{metric['numerator']} / {metric['denominator']}"
        table.add_row(
            name,
            counted,
            _number(metric["value"], metric["unit"]),
            _number(metric["bound"], metric["unit"]),
            metric["limit_text"],
            f"[{colors.get(metric['verdict'], 'dim')}]{metric['verdict']}[/]",
        )
    return table


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if unit == "ratio" else f"{value:g}"


def _show_pairs(samples: list[dict[str, Any]], console: Console) -> None:
    console.print(f"\n{len(samples)} accepted pairs, drawn at random:", markup=False)
    for sample in samples:
        console.print(f"  Instruction: {sample['instruction']}", markup=False)
        console.print(f"  Response:    {sample['response']}\n", markup=False)
