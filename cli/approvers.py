"""`stagegate approvers`: one-time codes, so that a name typed into a form is not enough."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(help="People who may decide, and their one-time codes.", no_args_is_help=True)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The name, as `gates.approvers` lists it.")],
    replace: Annotated[bool, typer.Option("--replace", help="Make the old secret useless.")] = False,
) -> None:
    """Make a secret for somebody's authenticator program, and show it this once."""
    from core.settings import get_settings
    from reviews.codes import enrol, provisioning_uri

    path = get_settings().approvers_file
    secret = enrol(path, name, replace=replace)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"secret of {name}: {secret}", markup=False)
    console.print(f"for an authenticator program: {provisioning_uri(name, secret)}", markup=False)
    console.print(f"kept in {path}, readable by you alone; it is not shown again", markup=False)


@app.command("list")
def list_() -> None:
    """Names that have a secret; never the secrets."""
    from core.settings import get_settings
    from reviews.codes import read_secrets

    console = Console(highlight=False, soft_wrap=True)
    names = sorted(read_secrets(get_settings().approvers_file))
    console.print("\n".join(names) if names else "nobody has a secret yet", markup=False)
