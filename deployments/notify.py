"""Automations on the server: killed runs become Crashed, and people hear of gates and failures.

Prefect's own machinery does it all: notification blocks hold where to, automations hold when.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from core.errors import BadInputError, StagegateError
from core.settings import get_settings
from deployments.pools import TAG

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.blocks.abstract import NotificationBlock
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import BlockDocument
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

CRASHED = "stagegate: crashed"
# Three heartbeats of 30 s missed, as Prefect's guide on zombie flows has it.
SILENCE_S = 90
TEST_EVENT = "stagegate.notify.test"
BLOCK_PREFIX = "stagegate-"
MAX_BLOCKS = 200
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
TEST_TIMEOUT_S = 20.0
ACTION = "prefect.automation.action."
MAX_EVENTS = 50


@dataclass(frozen=True)
class Kind:
    """One kind of event that people are told of; subject and body are Jinja templates of Prefect."""

    key: str
    trigger: Callable[[str], EventTrigger]
    subject: str
    body: str


@dataclass(frozen=True)
class Notification:
    """One place that is told, and which kinds of events are switched on for it."""

    name: str
    block: str
    kinds: dict[str, bool]


def ensure_crash_watch(client: SyncPrefectClient) -> None:
    """Create the automation that marks a flow run Crashed when its heartbeats stop, if it is not there.

    Any event of the run disarms it, Suspended too: a run at a gate has no process and no heartbeat.
    """
    if client.read_automations_by_name(CRASHED):
        return
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.*"},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENCE_S),
    )
    message = (
        f"No heartbeat for {SILENCE_S} s: its process was killed. Retry goes on from what was committed."
    )
    client.create_automation(
        AutomationCore(
            name=CRASHED,
            description="Marks flow runs whose process was killed; runs that wait at a gate are left alone.",
            trigger=trigger,
            actions=[ChangeFlowRunState(name=None, state=StateType.CRASHED, message=message, force=False)],
        )
    )


def _event_trigger(expect: str, match: dict[str, Any], **more: Any) -> EventTrigger:
    from prefect.events.schemas.automations import EventTrigger, Posture

    return EventTrigger(expect={expect}, match=match, posture=Posture.Reactive, threshold=1, **more)


def _gate(key: str, subject: str) -> Kind:
    return Kind(
        f"gate {key}",
        lambda _: _event_trigger(f"stagegate.gate.{key}", {"prefect.resource.id": "stagegate.gate.*"}),
        subject,
        "{{ event.payload['message'] }}\n{{ event.resource['stagegate.link'] }}",
    )


def _failure(_: str) -> EventTrigger:
    # By state type: a state may carry a name of its own, such as TimedOut.
    match = {"prefect.resource.id": "prefect.flow-run.*", "prefect.state-type": ["FAILED", "CRASHED"]}
    tag = {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
    return _event_trigger("prefect.flow-run.*", match, match_related=tag)


KINDS = (
    _gate("waiting", "stagegate: a gate waits for you"),
    _gate("decided", "stagegate: a gate was decided"),
    _gate("parked", "stagegate: a gate was parked"),
    Kind(
        "run failed",
        _failure,
        "stagegate: {{ flow.name }} {{ flow_run.state.name }}",
        "{{ flow.name }} '{{ flow_run.name }}' is {{ flow_run.state.name }}: {{ flow_run.state.message }}"
        "\n{{ flow_run | ui_url }}",
    ),
    Kind(
        "test",
        lambda name: _event_trigger(TEST_EVENT, {"prefect.resource.id": f"stagegate.notify.{name}"}),
        "stagegate: test",
        "{{ event.payload['message'] }}",
    ),
)


def webhook_block(url: str) -> NotificationBlock:
    """Block that POSTs JSON with `subject`, `body` and, for chat services, `text`.

    The URL is kept as a secret, since it often holds a token.
    """
    if not re.match(r"https?://\S+$", url):
        raise BadInputError(f"{url!r} is not a URL of http or https; give the whole address")
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.types import SecretDict

    return CustomWebhookNotificationBlock(
        name="stagegate",
        url="{{url}}",
        json_data={"subject": "{{subject}}", "body": "{{body}}", "text": "{{subject}}\n{{body}}"},
        secrets=SecretDict({"url": url}),
        headers=None,
        cookies=None,
    )


def slack_block(url: str) -> NotificationBlock:
    """Block that posts to a Slack incoming webhook."""
    # Prefect takes any URL here and, where it is not Slack's, drops every message without an error.
    if not re.match(r"https://hooks\.slack(-gov)?\.com/services/\w+/\w+/\w+/?$", url):
        raise BadInputError(
            "that is not a Slack incoming webhook (https://hooks.slack.com/services/T…/B…/…); make one at "
            "https://api.slack.com/messaging/webhooks, or use --webhook for other services"
        )
    from prefect.blocks.notifications import SlackWebhook
    from pydantic import SecretStr

    return SlackWebhook(url=SecretStr(url))


def email_block(to: list[str], sender: str | None) -> NotificationBlock:
    """Block that sends e-mail through SendGrid, the one e-mail service of open-source Prefect."""
    key = get_settings().sendgrid_api_key
    if key is None or sender is None:
        raise BadInputError(
            "e-mail goes through SendGrid: set STAGEGATE_SENDGRID_API_KEY and give --sender with an "
            "address that SendGrid lets you send from; deployments/README.md has a way over SMTP"
        )
    from prefect.blocks.notifications import SendgridEmail

    try:
        return SendgridEmail(api_key=key, sender_email=sender, to_emails=to)
    except ValueError as error:
        raise BadInputError(f"SendGrid would not take that: {error}; check --sender and --email") from error


def add(client: SyncPrefectClient, name: str, block: NotificationBlock) -> None:
    """Save the block and create one automation for each kind of event.

    Raises:
        BadInputError: the name is taken, or cannot be one.
    """
    if not NAME.fullmatch(name):
        raise BadInputError(f"{name!r} cannot be a name; use lower-case letters, digits and single dashes")
    if name in _documents(client):
        raise BadInputError(f"there is a notification {name} already; `stagegate notify remove {name}` first")
    block.save(BLOCK_PREFIX + name)
    block_id = _document(client, name).id
    for kind in KINDS:
        client.create_automation(_automation(name, kind, block_id))


def _automation(name: str, kind: Kind, block_id: UUID) -> AutomationCore:
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore

    action = SendNotification(block_document_id=block_id, subject=kind.subject, body=kind.body)
    return AutomationCore(
        name=_automation_name(name, kind),
        description=f"Made by `stagegate notify add`; switch it off to hear no more of: {kind.key}.",
        trigger=kind.trigger(name),
        actions=[action],
    )


def _automation_name(name: str, kind: Kind) -> str:
    return f"stagegate: notify {name}: {kind.key}"


def notifications(client: SyncPrefectClient) -> list[Notification]:
    """All notifications on the server, by name."""
    return [
        Notification(name, _block_type(document), _switches(client, name))
        for name, document in sorted(_documents(client).items())
    ]


def _documents(client: SyncPrefectClient) -> dict[str, BlockDocument]:
    """Our block documents by the name of their notification."""
    found = client.read_block_documents(limit=MAX_BLOCKS, include_secrets=False)
    ours = (d for d in found if (d.name or "").startswith(BLOCK_PREFIX))
    return {(d.name or "").removeprefix(BLOCK_PREFIX): d for d in ours}


def _block_type(document: BlockDocument) -> str:
    return document.block_type_name or (document.block_type.name if document.block_type else "?")


def _switches(client: SyncPrefectClient, name: str) -> dict[str, bool]:
    found = {kind.key: client.read_automations_by_name(_automation_name(name, kind)) for kind in KINDS}
    return {key: automations[0].enabled for key, automations in found.items() if automations}


def remove(client: SyncPrefectClient, name: str) -> None:
    """Delete a notification: its automations, then its block.

    Raises:
        BadInputError: there is none of that name.
    """
    document = _document(client, name)
    for kind in KINDS:
        for automation in client.read_automations_by_name(_automation_name(name, kind)):
            client.delete_automation(automation.id)
    client.delete_block_document(document.id)


def _document(client: SyncPrefectClient, name: str) -> BlockDocument:
    documents = _documents(client)
    if name in documents:
        return documents[name]
    have = ", ".join(sorted(documents)) or "none yet; `stagegate notify add` makes one"
    raise BadInputError(f"there is no notification {name}; there are: {have}")


def test(client: SyncPrefectClient, name: str) -> float:
    """Emit a test event for one notification and wait for its delivery; seconds that took.

    Raises:
        BadInputError: there is none of that name.
        StagegateError: it was not delivered; the server's reason is in the message.
    """
    from prefect.events import emit_event

    _document(client, name)
    started = time.monotonic()
    event = emit_event(
        TEST_EVENT,
        resource={"prefect.resource.id": f"stagegate.notify.{name}", "prefect.resource.name": name},
        payload={"message": f"This is a test of the notification {name}. Nothing waits for you."},
    )
    if event is None:
        raise StagegateError("the test event could not be sent; is the Prefect server up? `stagegate status`")
    while time.monotonic() - started < TEST_TIMEOUT_S:
        outcome = _outcome(client, event.id)
        if ACTION + "executed" in outcome:
            return time.monotonic() - started
        if ACTION + "failed" in outcome:
            break
        time.sleep(0.5)
    raise StagegateError(_undelivered(name, outcome))


def _outcome(client: SyncPrefectClient, event_id: UUID) -> dict[str, Any]:
    """What the server did about our event: names of its own events on that, with their payloads."""
    from prefect.events.filters import EventFilter, EventNameFilter

    wanted = EventFilter(event=EventNameFilter(prefix=[ACTION]))
    recent = client.read_events(wanted, limit=MAX_EVENTS).events
    return {e.event: e.payload for e in recent if any(str(event_id) in r.id for r in e.related)}


def _undelivered(name: str, outcome: dict[str, Any]) -> str:
    if ACTION + "triggered" not in outcome:
        return (
            f"the server did not act on the test event within {TEST_TIMEOUT_S:.0f} s; is the automation "
            f"'stagegate: notify {name}: test' switched on?"
        )
    reason = outcome.get(ACTION + "failed", {}).get("reason", "it did not answer with success")
    return (
        f"{name} was sent the test and did not take it: {reason}. The server's log says more; to change "
        f"the address: `stagegate notify remove {name}`, then add it again"
    )
