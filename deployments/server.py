"""The Prefect server: the configured one, one that answers already, or one started here.

A server that `stagegate` did not start is used and never stopped.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rich.console import Console

from core.errors import BadInputError, StagegateError, TransientError
from core.settings import get_settings
from deployments.environment import WILDCARDS, auth_string, prefect_environment, server_environment
from deployments.processes import ProcessId, start
from deployments.record import Stack, locked, read_stack

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

HOST = "127.0.0.1"
PORT = 4200
START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 3.0


def connect(console: Console) -> str:
    """API URL of a server that answers; this process's Prefect client is pointed at it.

    Call it before Prefect is first imported: Prefect reads its environment once.

    Raises:
        TransientError: a configured server does not answer, or none could be started in time.
        BadInputError: the server wants another password than STAGEGATE_SERVER_PASSWORD.
    """
    url = ensure_server(console)
    point_at(url)
    return url


def point_at(url: str) -> None:
    """Make that server the one of this process, for Prefect and for what it starts."""
    os.environ.update(prefect_environment(), PREFECT_API_URL=url)
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)


def client_for(url: str) -> SyncPrefectClient:
    """Prefect's client for that server; see `connect` on when."""
    point_at(url)
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)


def ensure_server(console: Console) -> str:
    """API URL of a server that answers: configured, recorded, local, or started now and left running.

    Raises:
        TransientError: a configured server does not answer, or none could be started in time.
        BadInputError: the server wants another password than STAGEGATE_SERVER_PASSWORD.
    """
    with locked(console):
        return take_server(read_stack(), console, None, None)


def take_server(stack: Stack, console: Console, host: str | None, port: int | None) -> str:
    """Like `ensure_server`, with the lock held already; `stack` gets the server and is saved.

    Args:
        host, port: where a server that is started listens; None leaves the choice.
    """
    if configured := os.environ.get("PREFECT_API_URL"):
        url = _configured(configured)
    elif stack.server is not None and stack.server.alive and stack.api_url is not None:
        _refuse_elsewhere(stack, host, port)
        url = _wait(stack.api_url, stack.server)
    else:
        check_host(wanted := host or stack.host or HOST)
        url = api_url(wanted, port or stack.port or PORT)
        if not healthy(url):
            return _start(stack, console, wanted, port)
    check_password(url)
    _use(stack, url)
    return url


def healthy(url: str) -> bool:
    """Whether a Prefect server answers at this API URL, whatever its password."""
    try:
        with urlopen(f"{url}/health", timeout=ANSWER_TIMEOUT_S) as answer:
            return bool(answer.status == 200 and json.load(answer) is True)
    except (URLError, OSError, ValueError):
        return False


def check_password(url: str) -> None:
    """Refuse to go on with a server that does not take our password, or wants one that is not set.

    Raises:
        BadInputError: it answers 401.
    """
    request = Request(f"{url}/admin/version")
    login = os.environ.get("PREFECT_API_AUTH_STRING") or auth_string()
    if login is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urlopen(request, timeout=ANSWER_TIMEOUT_S):
            return
    except HTTPError as error:
        if error.code != 401:
            return
    except (URLError, OSError):
        return
    have = "not the one in STAGEGATE_SERVER_PASSWORD" if login else "and STAGEGATE_SERVER_PASSWORD is not set"
    raise BadInputError(
        f"the Prefect server at {url} wants a password, {have}; set the variable to the one that the "
        "server was started with"
    )


def check_host(host: str) -> None:
    """Refuse to listen where other machines can reach the server without a password.

    Raises:
        BadInputError: `host` is not loopback and STAGEGATE_SERVER_PASSWORD is not set.
    """
    if is_loopback(host) or auth_string() is not None:
        return
    raise BadInputError(
        f"a server on {host} could be reached from other machines, and whoever reaches it can run "
        "code here; set STAGEGATE_SERVER_PASSWORD first, or leave --host out to listen on "
        f"{HOST} only"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def api_url(host: str, port: int) -> str:
    """API URL by which this machine reaches a server that listens there."""
    reached = HOST if host in WILDCARDS else host
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}/api"


def _configured(url: str) -> str:
    if healthy(url):
        return url
    raise TransientError(
        f"PREFECT_API_URL is {url} but no Prefect server answers there; start it, or unset "
        "the variable to have one started here"
    )


def _refuse_elsewhere(stack: Stack, host: str | None, port: int | None) -> None:
    if (host or stack.host, port or stack.port) == (stack.host, stack.port):
        return
    raise BadInputError(
        f"the server of this checkout listens on {stack.host}:{stack.port} already; `stagegate down` "
        "stops it, then start it elsewhere"
    )


def _use(stack: Stack, url: str) -> None:
    """Record the server; workers that serve another one are in the way."""
    if stack.api_url not in (None, url) and (others := stack.live_workers):
        raise BadInputError(
            f"{len(others)} workers of this checkout serve {stack.api_url}, not {url}; "
            "`stagegate down` ends them"
        )
    if stack.api_url != url:
        stack.server = stack.host = stack.port = None
    stack.api_url = url
    stack.save()


def _start(stack: Stack, console: Console, host: str, port: int | None) -> str:
    """Start a server, record it, and wait until it answers; its API URL."""
    chosen = _choose_port(stack, host, port)
    url = api_url(host, chosen)
    _use(stack, url)
    console.print(f"starting a Prefect server on {host}:{chosen} (about 15 s the first time)")
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(chosen)]
    settings = get_settings()
    environment = server_environment(host, chosen, stack.mark)
    process = start(command, settings.root, _log(), environment)
    stack.host, stack.port, stack.server = host, chosen, process
    stack.save()
    return _wait(url, process)


def _wait(url: str, process: ProcessId) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if healthy(url):
            return url
        if not process.alive:
            raise StagegateError(f"the Prefect server ended at once; its log is {_log()}")
        time.sleep(0.3)
    raise TransientError(
        f"no answer from the Prefect server (process {process.pid}) after {START_TIMEOUT_S:.0f} s; "
        f"its log is {_log()}"
    )


def _log() -> Path:
    return get_settings().home.absolute() / "logs" / "prefect-server.log"


def _choose_port(stack: Stack, host: str, port: int | None) -> int:
    """The port asked for; else the one of last time, to which workers come back; else a free one."""
    if port is not None:
        if _free(host, port):
            return port
        raise BadInputError(
            f"port {port} on {host} is in use by something that is not a Prefect server; choose "
            "another --port"
        )
    usual = stack.port or PORT
    return usual if _free(host, usual) else _any_free(host)


def _free(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port), family=_family(host)).close()
    except OSError:
        return False
    return True


def _any_free(host: str) -> int:
    with socket.create_server((host, 0), family=_family(host)) as probe:
        return int(probe.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
