"""`stagegate guard MODEL`: is this a clean base model, and are these prompts what they say?

Exit codes: 0 clean, 3 contaminated or unhealthy, 2 cannot be loaded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import ContaminationError, DataFileError, StagegateError

if TYPE_CHECKING:
    from core.models.report import GuardReport
    from core.models.spec import ModelSpec

EXIT_REFUSED = 3


def guard(
    model: Annotated[
        str, typer.Argument(help="`bundled`, a directory, a .gguf file, or a hub id (owner/name).")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON and nothing else.")
    ] = False,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="Also check this prompt; repeatable.")
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option("--prompt-file", help="Also check this file as one prompt.")
    ] = None,
    bos: Annotated[str, typer.Option(help="auto, always or never.")] = "auto",
    quantization: Annotated[str, typer.Option(help="none, nf4 or int8.")] = "none",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
) -> None:
    """Examine a model. Exit 0: clean base model, 3: contaminated or unhealthy, 2: cannot be loaded."""
    try:
        prompts = [*(prompt or ()), *_read(prompt_file)]
        from core.models.spec import ModelSpec

        spec = ModelSpec(model, revision, bos, quantization, dtype, device)  # type: ignore[arg-type]
        report = _examine(spec, prompts)
    except ContaminationError as error:
        _show_refusal(model, error, as_json)
        raise typer.Exit(EXIT_REFUSED) from error
    except StagegateError as error:
        if as_json:
            typer.echo(json.dumps({"source": model, "clean": False, "error": str(error)}, indent=2))
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    if as_json:
        typer.echo(json.dumps(report.to_record(), indent=2, ensure_ascii=False))
    else:
        _print(report)
    raise typer.Exit(0 if report.clean else EXIT_REFUSED)


def _read(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return [file.read_text(encoding="utf-8")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"the prompt file {file} cannot be read: {error}", lines=[]) from error


def _examine(spec: ModelSpec, prompts: list[str]) -> GuardReport:
    from core.engines.transformers import TransformersEngine
    from core.models.examine import examine
    from core.models.loader import load_model
    from core.settings import get_settings

    def tell(message: str) -> None:
        typer.echo(message, err=True)

    loaded = load_model(spec, cache_dir=get_settings().model_cache_dir, on_event=tell)
    return examine(loaded, TransformersEngine(loaded), prompts=prompts)


def _show_refusal(model: str, error: ContaminationError, as_json: bool) -> None:
    """A model that was refused while loading, before there was a report."""
    if as_json:
        typer.echo(json.dumps({"source": model, "clean": False, "error": str(error)}, indent=2))
    typer.echo(f"Refused: {error}", err=True)


def _print(report: GuardReport) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(file=sys.stdout, highlight=False)
    identity = report.identity
    table = Table(title=f"Guard: {escape(report.source)}", title_justify="left")
    for heading in ("check", "verdict", "found"):
        table.add_column(heading, overflow="fold")
    for check in report.checks:
        verdict = "[green]ok[/]" if check.ok else "[bold red]refused[/]"
        table.add_row(check.name, verdict, escape(check.detail))
    console.print(table)
    console.print(
        f"{identity['architecture']}, {identity['n_params']:,} weights, {identity['dtype']}, "
        f"quantisation {identity['quantization']}, weights sha256 {identity['weights_sha256'][:16]}",
        markup=False,
        soft_wrap=True,
    )
    colour = "green" if report.clean else "red"
    console.print(f"[bold {colour}]{escape(report.verdict)}[/]", soft_wrap=True)
