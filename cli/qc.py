"""`stagegate qc FILE`: judge any JSONL of instructions and responses.

Exit codes: 0 pass, 3 fail or insufficient, 2 a file or config that cannot be used.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import StagegateError

if TYPE_CHECKING:
    from rich.console import Console

    from core.qc.rows import ReadResult
    from core.qc.thresholds import QCThresholds
    from core.qc.verdicts import MetricResult, QCReport

EXIT_REFUSED = 3
COLOURS = {
    "pass": "green",
    "warn": "yellow",
    "fail": "red",
    "insufficient": "magenta",
    "not_measured": "dim",
}


def qc(
    file: Annotated[Path, typer.Argument(help="JSONL with `instruction` and `response`.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON and nothing else.")
    ] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Judge the rest of a file with broken lines.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write qc_summary.json and qc_report.html here.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Run config whose `qc` limits apply.")
    ] = None,
    requested: Annotated[
        int | None, typer.Option("--requested", min=1, help="Pairs that were asked for.")
    ] = None,
) -> None:
    """Judge response candidates. Exit 0: pass, 3: fail or insufficient, 2: unusable input."""
    try:
        report, read = _judge_file(file, skip_broken, config, requested)
        written = _write(report, read, out, file) if out else []
    except StagegateError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    if as_json:
        typer.echo(json.dumps(_summary(report, read), ensure_ascii=False, indent=2))
    else:
        _print(report, read, written)
    raise typer.Exit(0 if report.verdict == "pass" else EXIT_REFUSED)


def _judge_file(
    file: Path, skip_broken: bool, config: Path | None, requested: int | None
) -> tuple[QCReport, ReadResult]:
    from core.qc.judge import judge
    from core.qc.rows import read_rows

    thresholds = _thresholds(config)
    read = read_rows(file, skip_broken=skip_broken)
    return judge(read.rows, thresholds=thresholds, requested=requested), read


def _thresholds(config: Path | None) -> QCThresholds:
    from core.qc.thresholds import QCThresholds

    if config is None:
        return QCThresholds()
    from core.config import load_config

    return load_config(config).qc


def _summary(report: QCReport, read: ReadResult) -> dict[str, object]:
    summary: dict[str, object] = report.to_dict()
    summary["skipped_lines"] = [{"line": line, "reason": why} for line, why in read.broken]
    return summary


def _write(report: QCReport, read: ReadResult, out: Path, file: Path) -> list[Path]:
    from core.qc.report import write_report

    extra = {
        "source": file.name,
        "skipped_lines": [{"line": line, "reason": why} for line, why in read.broken],
    }
    return list(write_report(report, out, title=f"QC of {file.name}", extra=extra))


def _print(report: QCReport, read: ReadResult, written: list[Path]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(file=sys.stdout, highlight=False)
    _print_table(console, report)
    for line, why in read.broken:
        console.print(f"[yellow]skipped line {line}[/]: {escape(why)}")
    colour = COLOURS[report.verdict]
    console.print(
        f"[bold {colour}]{report.verdict}[/]: {report.kept:,} kept of {report.candidates:,} candidates"
    )
    for reason in report.reasons:
        console.print(f"  {escape(reason)}")
    for name, (default, now) in report.thresholds_changed.items():
        console.print(f"  [yellow]limit changed[/], {name}: {default} by default, here {now}")
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)


def _print_table(console: Console, report: QCReport) -> None:
    from rich.table import Table

    table = Table(title="Quality control", title_justify="left")
    for heading in ("metric", "count", "value", "95% interval", "exact bound", "limit", "verdict"):
        table.add_column(heading, justify="left" if heading in ("metric", "verdict") else "right")
    table.columns[3].header = f"{report.thresholds.confidence:.0%} interval"
    for result in report.metrics:
        table.add_row(*_cells(result), style="dim" if result.verdict == "not_measured" else None)
    console.print(table)


def _cells(result: MetricResult) -> tuple[str, ...]:
    from core.qc.wording import bound_text, count_text, interval_text, value_text

    return (
        result.name,
        count_text(result),
        value_text(result),
        interval_text(result),
        bound_text(result),
        result.limit_text,
        f"[{COLOURS[result.verdict]}]{result.verdict.replace('_', ' ')}[/]",
    )
