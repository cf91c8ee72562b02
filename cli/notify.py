"""`stagegate notify`: who is told when a gate waits, was decided or parked, or a run failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from core.errors import BadInputError

if TYPE_CHECKING:
    from prefect.blocks.abstract import NotificationBlock
    from prefect.client.orchestration import SyncPrefectClient

app = typer.Typer(no_args_is_help=True, help="Tell people when a gate waits or a run failed.")

Name = Annotated[str, typer.Argument(help="Name of the notification, as `list` shows it.")]


@app.command()
def add(
    webhook: Annotated[str | None, typer.Option(help="URL that gets a JSON POST.")] = None,
    slack: Annotated[str | None, typer.Option(help="Slack incoming webhook.")] = None,
    email: Annotated[list[str] | None, typer.Option(help="Address to write to; repeatable.")] = None,
    sender: Annotated[str | None, typer.Option(help="Address that e-mail comes from.")] = None,
    name: Annotated[str | None, typer.Option(help="Its name; webhook, slack or email if left out.")] = None,
) -> None:
    """Tell one more place of gates and failures. Give exactly one of --webhook, --slack, --email."""
    given = {"webhook": webhook, "slack": slack, "email": email}
    chosen = [kind for kind, value in given.items() if value]
    if len(chosen) != 1:
        raise BadInputError(f"give exactly one of --webhook, --slack and --email; {len(chosen)} were given")
    name = name or chosen[0]
    console, client = _client()
    from deployments import notify

    block = _block(webhook, slack, email or [], sender)
    notify.add(client, name or chosen[0], block)
    console.print(
        f"added {name or chosen[0]}; try it: stagegate notify test {name or chosen[0]}", markup=False
    )


@app.command("list")
def list_() -> None:
    """Show every notification and what it is told of."""
    console, client = _client()
    from deployments import notify

    found = notify.notifications(client)
    for each in found:
        kinds = ", ".join(f"{kind} {'on' if on else 'off'}" for kind, on in each.kinds.items())
        console.print(f"{each.name} ({each.block}): {kinds}", markup=False)
    if not found:
        console.print("no notifications; `stagegate notify add` makes one")


@app.command()
def remove(name: Name) -> None:
    """Delete a notification with its automations."""
    console, client = _client()
    from deployments import notify

    notify.remove(client, name)
    console.print(f"removed {name}", markup=False)


@app.command()
def test(name: Name) -> None:
    """Send a test through a notification and wait until the server says what came of it."""
    console, client = _client()
    from deployments import notify

    took_s = notify.test(client, name)
    console.print(f"delivered to {name} in {took_s:.1f} s", markup=False)


def _client() -> tuple[Console, SyncPrefectClient]:
    from deployments.server import client_for, ensure_server

    console = Console(highlight=False, soft_wrap=True)
    return console, client_for(ensure_server(console))


def _block(webhook: str | None, slack: str | None, email: list[str], sender: str | None) -> NotificationBlock:
    from deployments import notify

    if webhook:
        return notify.webhook_block(webhook)
    if slack:
        return notify.slack_block(slack)
    return notify.email_block(email, sender)
