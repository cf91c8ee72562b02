"""Notifications through a real server, with a password and on all addresses, to a local receiver."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployments.processes import marked
from deployments.record import Stack
from tests.flows.stack_home import Checkout, until

PASSWORD = "correct-horse-battery"


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted to it; answers 500 under /broken."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[dict[str, str]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}?token=hush-hush"

    def bodies(self, path: str, subject: str) -> list[str]:
        return [g["body"] for g in self.got if g["path"].startswith(f"/{path}") and g["subject"] == subject]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        posted = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.got.append({**posted, "path": self.path})
        self.send_response(500 if self.path.startswith("/broken") else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Checkout]:
    """A guarded stack that other machines could reach, with one notification."""
    made = Checkout(tmp_path_factory.mktemp("guarded"), password=PASSWORD)
    try:
        made.run("up", "--host", "0.0.0.0", "--port", str(made.port))
        made.run("notify", "add", "--webhook", receiver.url("here"))
        yield made
    finally:
        made.run("down")


def test_a_guarded_server_refuses_strangers(checkout: Checkout) -> None:
    """Without the password the API answers 401, and `stagegate` says which variable is missing."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{checkout.url}/admin/version", timeout=5)
    assert refused.value.code == 401
    stranger = copy.copy(checkout)
    stranger.password = None
    assert "STAGEGATE_SERVER_PASSWORD is not set" in stranger.run("up", code=2)


def test_the_password_is_on_no_command_line_and_in_no_file(checkout: Checkout) -> None:
    """It travels by environment only: not in `ps`, not in logs, records or Prefect's files."""
    stack = Stack.model_validate_json((checkout.home / "stack.json").read_text())
    assert not any(PASSWORD in " ".join(p.cmdline()) for p in marked(stack.mark))
    files = [p for p in checkout.folder.rglob("*") if p.is_file()]
    assert [p for p in files if PASSWORD.encode() in p.read_bytes()] == []


def test_a_test_message_arrives_and_its_delivery_is_reported(checkout: Checkout, receiver: Receiver) -> None:
    """`notify test` reaches the receiver and says after how long."""
    assert "delivered to webhook in" in checkout.run("notify", "test", "webhook")
    (body,) = receiver.bodies("here", "stagegate: test")
    assert "Nothing waits for you" in body


EMIT = """
import sys
from prefect.events import emit_event
resource = {"prefect.resource.id": "stagegate.gate.run-1.pilot-2", "stagegate.link": "http://ui/x"}
for kind in ("waiting", "decided", "parked"):
    emit_event(f"stagegate.gate.{kind}", resource=resource, payload={"message": f"pilot-2 is {kind}"})
"""


def test_gate_events_reach_the_receiver_with_message_and_link(checkout: Checkout, receiver: Receiver) -> None:
    """Waiting, decided and parked each arrive once within seconds, with what the event says."""
    environment = checkout.environment() | {
        "PREFECT_API_URL": checkout.url,
        "PREFECT_API_AUTH_STRING": f"admin:{PASSWORD}",
    }
    subprocess.run([sys.executable, "-c", EMIT], env=environment, check=True, timeout=60)
    subjects = ("a gate waits for you", "a gate was decided", "a gate was parked")
    for subject, kind in zip(subjects, ("waiting", "decided", "parked"), strict=True):
        until(lambda s=subject: receiver.bodies("here", f"stagegate: {s}"), subject, timeout_s=15)
        assert receiver.bodies("here", f"stagegate: {subject}") == [f"pilot-2 is {kind}\nhttp://ui/x"]


def test_a_run_that_failed_on_a_guarded_worker_is_told(checkout: Checkout, receiver: Receiver) -> None:
    """Workers work with the password; the message names the flow, the state, the error, and where to look."""
    run_id = checkout.submit("broken")
    until(lambda: receiver.bodies("here", "stagegate: broken Failed"), "failure told")
    (body,) = receiver.bodies("here", "stagegate: broken Failed")
    assert "on purpose" in body
    assert f"/runs/flow-run/{run_id}" in body


def test_notifications_are_listed_without_their_secrets_and_removed_whole(checkout: Checkout) -> None:
    """A name is taken once; the list shows switches and no token; removing leaves no automation."""
    taken = checkout.run("notify", "add", "--webhook", "http://x", code=2)
    assert "there is a notification webhook already" in taken
    shown = checkout.run("notify", "list")
    assert (
        "webhook (Custom Webhook): gate waiting on, gate decided on, gate parked on, run failed on" in shown
    )
    assert "hush-hush" not in shown
    checkout.run("notify", "remove", "webhook")
    assert "there is no notification webhook" in checkout.run("notify", "remove", "webhook", code=2)
    with checkout.client() as client:
        assert {a.name for a in client.read_automations()} == {"stagegate: crashed"}
