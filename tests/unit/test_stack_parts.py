"""Parts of the local stack that need no server: identity of processes, hosts, passwords, the record."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from rich.console import Console

from core.errors import BadInputError, DataFileError
from core.settings import get_settings
from deployments import notify, stack
from deployments.environment import MARK, server_environment, worker_environment
from deployments.pools import _wanted, source_version
from deployments.processes import ProcessId, end, flow_run_ids, marked, start
from deployments.record import Stack, Worker, read_stack, record_path
from deployments.server import api_url, check_host, is_loopback, take_server

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print(1, flush=True); time.sleep(60)",
]


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """A home of its own, read anew."""
    monkeypatch.setenv("STAGEGATE_HOME", str(tmp_path / "home"))
    for name in ("STAGEGATE_SERVER_PASSWORD", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    get_settings.cache_clear()
    yield monkeypatch
    get_settings.cache_clear()


def test_a_reused_pid_is_not_the_process_that_was_recorded() -> None:
    """The same number with another start is another process, and a dead one is dead."""
    own = psutil.Process()
    assert ProcessId(pid=own.pid, started_s=own.create_time()).alive
    assert not ProcessId(pid=own.pid, started_s=own.create_time() - 60).alive
    gone = subprocess.Popen([sys.executable, "-c", ""])
    known = ProcessId(pid=gone.pid, started_s=psutil.Process(gone.pid).create_time())
    gone.wait()
    assert not known.alive


def test_marked_processes_are_found_with_what_they_started_and_no_others(tmp_path: Path) -> None:
    """A mark is handed down to children in other sessions, and other processes are not found by it."""
    child = f"import subprocess, time; subprocess.Popen({SLEEP!r}, start_new_session=True); time.sleep(60)"
    environment = {MARK: "mine", "PREFECT__FLOW_RUN_ID": "run-1"}
    foreign = subprocess.Popen(SLEEP)
    parent = start([sys.executable, "-c", child], tmp_path, tmp_path / "log", environment)
    try:
        while len(found := marked("mine")) < 2:
            assert parent.alive
        assert parent.pid in {p.pid for p in found}
        assert flow_run_ids(found) == {"run-1"}
        assert end(found) == 0
        assert marked("mine") == []
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    """SIGTERM first; what is still there after the grace gets SIGKILL, and is counted."""
    process = start(STUBBORN, tmp_path, tmp_path / "log", {})
    while not (tmp_path / "log").read_text():
        assert process.alive
    assert end([psutil.Process(process.pid)], grace_s=0.3) == 1
    assert not process.alive


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.5", False),
        ("gpu-box", False),
    ],
)
def test_only_loopback_needs_no_password(host: str, loopback: bool, settings: pytest.MonkeyPatch) -> None:
    """A host that other machines can reach is refused without a password and taken with one."""
    assert is_loopback(host) is loopback
    if not loopback:
        with pytest.raises(BadInputError, match=r"set STAGEGATE_SERVER_PASSWORD first") as refused:
            check_host(host)
        assert refused.value.exit_code == 2
        settings.setenv("STAGEGATE_SERVER_PASSWORD", "p")
        get_settings.cache_clear()
    check_host(host)


def test_a_refused_host_starts_and_records_nothing() -> None:
    """The refusal comes before any process and before the record."""
    with pytest.raises(BadInputError):
        take_server(Stack(), Console(quiet=True), "0.0.0.0", None)
    assert not record_path().exists()


def test_a_port_that_something_else_uses_is_named() -> None:
    """A chosen port on which no Prefect server answers is refused with its number."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInputError, match=f"port {port} on 127.0.0.1 is in use"):
            take_server(Stack(), Console(quiet=True), "127.0.0.1", port)


def test_api_urls_are_such_that_this_machine_reaches_the_server() -> None:
    """A wildcard is reached by loopback, an IPv6 address stands in brackets."""
    assert api_url("0.0.0.0", 1) == "http://127.0.0.1:1/api"
    assert api_url("::1", 2) == "http://[::1]:2/api"
    assert api_url("10.0.0.5", 3) == "http://10.0.0.5:3/api"


def test_the_password_reaches_server_and_workers_by_environment(settings: pytest.MonkeyPatch) -> None:
    """Server and workers get the login where a password is set, and nothing of it where none is."""
    names = {"PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"}
    assert names.isdisjoint(server_environment("127.0.0.1", 1, "m"))
    settings.setenv("STAGEGATE_SERVER_PASSWORD", "s3cret")
    get_settings.cache_clear()
    assert server_environment("127.0.0.1", 1, "m")["PREFECT_SERVER_API_AUTH_STRING"] == "admin:s3cret"
    worker = worker_environment("http://x/api", None, "m")
    assert worker["PREFECT_API_AUTH_STRING"] == "admin:s3cret"
    assert "PREFECT_SERVER_API_AUTH_STRING" not in worker


def test_a_worker_is_given_absolute_paths_and_its_device(
    settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Flow runs find the same home from any folder, and see one device."""
    settings.chdir(tmp_path)
    settings.setenv("STAGEGATE_HOME", "relative")
    get_settings.cache_clear()
    worker = worker_environment("http://x/api", "1", "m")
    assert worker["STAGEGATE_HOME"] == str(tmp_path / "relative")
    assert Path(worker["STAGEGATE_ROOT"]).is_absolute()
    assert worker["CUDA_VISIBLE_DEVICES"] == "1"


def test_the_record_survives_a_round_trip_and_a_broken_one_is_named() -> None:
    """What was saved is read back; a broken file is an error in words, not an empty stack."""
    assert read_stack().workers == []
    process = ProcessId(pid=1, started_s=2.5)
    saved = Stack(api_url="u", workers=[Worker(name="cpu@x", pool="cpu", device=None, process=process)])
    saved.save()
    assert read_stack() == saved
    record_path().write_text("{", encoding="utf-8")
    with pytest.raises(DataFileError, match=r"stack\.json cannot be read"):
        read_stack()


def test_devices_come_from_the_environment_before_the_driver(settings: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES decides; an empty one means no device."""
    settings.setenv("CUDA_VISIBLE_DEVICES", "0, 3")
    assert stack.cuda_devices() == ["0", "3"]
    settings.setenv("CUDA_VISIBLE_DEVICES", "")
    assert stack.cuda_devices() == []


def test_each_device_gets_a_worker_and_a_machine_without_one_gets_one_too() -> None:
    """One worker for `cpu`, then one per device; names differ."""
    places = stack._places(Stack(), ["0", "1"])
    assert [(p.pool, p.device) for p in places] == [("cpu", None), ("gpu", "0"), ("gpu", "1")]
    assert len({p.name for p in places}) == 3


def test_devices_of_running_workers_are_not_taken_away() -> None:
    """Other --devices than those that run are refused, and without --devices the running ones stay."""
    own = psutil.Process()
    alive = ProcessId(pid=own.pid, started_s=own.create_time())
    running = Stack(workers=[Worker(name="gpu-5@x", pool="gpu", device="5", process=alive)])
    assert [p.device for p in stack._places(running, None)] == [None, "5"]
    with pytest.raises(BadInputError, match=r"device 5 already, and --devices asks for device 6"):
        stack._places(running, ["6"])


def test_the_source_version_changes_with_flows_and_with_prefect_yaml(
    settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Editing a flow, a type of its parameters or prefect.yaml deploys again; other files do not."""
    settings.setenv("STAGEGATE_ROOT", str(tmp_path))
    get_settings.cache_clear()
    seen = set()
    writes = [("prefect.yaml", "a"), ("flows/x.py", "1"), ("core/config.py", "1"), ("flows/x.py", "2")]
    for name, text in writes:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        seen.add(source_version())
    (tmp_path / "README.md").write_text("x")
    assert len(seen) == 4
    assert source_version() in seen


def test_prefect_yaml_names_modules_and_ships_schedules_off() -> None:
    """Every entrypoint of the checkout's prefect.yaml is a module's, each name comes once."""
    wanted = _wanted()
    assert all("/" not in entrypoint and ":" not in entrypoint for entrypoint, _ in wanted)
    assert len({name for _, name in wanted}) == len(wanted)


def test_what_cannot_be_told_is_said_before_anything_is_made(settings: pytest.MonkeyPatch) -> None:
    """An address that is no URL, one that is not Slack's, and e-mail without a key are bad input."""
    with pytest.raises(BadInputError, match="not a URL"):
        notify.webhook_block("example.com")
    with pytest.raises(BadInputError, match="not a Slack incoming webhook"):
        notify.slack_block("https://example.com/services/T/B/x")
    with pytest.raises(BadInputError, match="STAGEGATE_SENDGRID_API_KEY"):
        notify.email_block(["a@example.org"], "b@example.org")
    settings.setenv("STAGEGATE_SENDGRID_API_KEY", "SG.x")
    get_settings.cache_clear()
    with pytest.raises(BadInputError, match="SendGrid would not take that"):
        notify.email_block(["a@example.org"], "nobody")
    assert notify.email_block(["a@example.org"], "b@example.org").to_emails == ["a@example.org"]


def test_every_kind_of_event_makes_a_valid_automation() -> None:
    """Prefect accepts each automation, its templates included, and names tell them apart."""
    made = [notify._automation("ops", kind, uuid4()) for kind in notify.KINDS]
    assert len({automation.name for automation in made}) == len(notify.KINDS) == 5
