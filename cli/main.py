"""Entry point of `stagegate`: commands, and errors turned into sentences and exit codes.

Exit codes: 0 done, 1 unexpected error, 2 bad input or config, 3 a gate said no, 4 waiting for
approval, 5 budget. Heavy packages are imported inside the commands that need them.
"""

from __future__ import annotations

import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console

from cli.approvers import app as approvers
from cli.gates import approve, gates, resume, run
from cli.guard import guard
from cli.history import iterations, reviews
from cli.notify import app as notify
from cli.pilot import pilot
from cli.qc import qc
from cli.stack import down, status, up
from cli.verify import verify
from core.errors import StagegateError
from core.settings import get_settings

app = typer.Typer(
    help="Turn a base language model into an instruction-following one, one approved gate at a time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(pilot)
app.command()(guard)
app.command()(qc)
app.command()(verify)
app.command()(up)
app.command()(down)
app.command()(status)
app.command()(run)
app.command()(gates)
app.command()(approve)
app.command()(resume)
app.command()(iterations)
app.command()(reviews)
app.add_typer(approvers, name="approvers")
app.add_typer(notify, name="notify")


def main() -> None:
    """Run the command line; never shows a traceback."""
    console = Console(stderr=True, highlight=False)
    try:
        app()
    except StagegateError as error:
        console.print(f"[bold red]error:[/] {_plain(error)}", soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console.print("interrupted; what was committed is kept, the same command goes on from there")
        sys.exit(130)
    except Exception as error:
        console.print(
            f"[bold red]unexpected error:[/] {type(error).__name__}: {_plain(error)}\n"
            f"The traceback is in {_save_traceback()}; this is a fault of stagegate, please report it.",
            soft_wrap=True,
        )
        sys.exit(1)


def _plain(error: Exception) -> str:
    return str(error).replace("[", r"\[")


def _save_traceback() -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    path = get_settings().home / "logs" / f"error-{stamp}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:
        traceback.print_exc()
        return "the lines above"
    return str(Path(path))
