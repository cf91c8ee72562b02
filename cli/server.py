"""The local Prefect server: found, or started on loopback and left running; `stagegate up` and `down`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from rich.console import Console

from core.errors import StagegateError, TransientError
from core.settings import get_settings

HOST = "127.0.0.1"
PORT = 4200
START_TIMEOUT_S = 120

# Why each of these: docs/architecture.md, "Prefect settings".
PREFECT_ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": ("prefect.server.concurrency.lease_storage.filesystem"),
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


def prefect_environment() -> dict[str, str]:
    """Environment for Prefect in this checkout: its home, its result storage, quiet defaults.

    What the user has set already stays.
    """
    home = (get_settings().home / "prefect").absolute()
    defaults = {
        "PREFECT_HOME": str(home),
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "storage"),
        **PREFECT_ENVIRONMENT,
    }
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


def healthy(api_url: str) -> bool:
    """Whether a Prefect server answers at this API URL."""
    try:
        with urlopen(f"{api_url}/health", timeout=3) as answer:
            return bool(answer.status == 200 and json.load(answer) is True)
    except (URLError, OSError, ValueError):
        return False


def _pid_file() -> Path:
    return get_settings().home / "server.json"


def _started() -> dict[str, Any] | None:
    try:
        record = json.loads(_pid_file().read_text(encoding="utf-8"))
        return record if _is_our_server(int(record["pid"])) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_our_server(pid: int) -> bool:
    """Whether that process still is a Prefect server: pids are given out again."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"prefect" in command


def ensure_server(console: Console) -> str:
    """API URL of a running server: the configured one, the local one, or one started now.

    Raises:
        TransientError: a configured server does not answer, or none could be started in time.
    """
    configured = os.environ.get("PREFECT_API_URL")
    if configured:
        if healthy(configured):
            return configured
        raise TransientError(
            f"PREFECT_API_URL is {configured} but no Prefect server answers there; start it, or unset "
            "the variable to have one started here"
        )
    record = _started()
    for port in dict.fromkeys([record["port"] if record else PORT, PORT]):
        if healthy(url := f"http://{HOST}:{port}/api"):
            return url
    return _start(console)


def _start(console: Console) -> str:
    port = _free_port()
    settings = get_settings()
    log = settings.home / "logs" / "prefect-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    console.print(f"starting a local Prefect server on {HOST}:{port} (about 15 s the first time)")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "prefect",
                "server",
                "start",
                "--host",
                HOST,
                "--port",
                str(port),
            ],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **prefect_environment()},
            start_new_session=True,
        )
    _pid_file().write_text(json.dumps({"pid": process.pid, "port": port}), encoding="utf-8")
    url = f"http://{HOST}:{port}/api"
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if healthy(url):
            return url
        if process.poll() is not None:
            raise StagegateError(f"the Prefect server ended at once; its log is {log}")
        time.sleep(0.5)
    raise TransientError(f"no answer from the Prefect server after {START_TIMEOUT_S} s; its log is {log}")


def _free_port() -> int:
    import socket

    for port in (PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StagegateError(f"no free port on {HOST}")


def up() -> None:
    """Start the local Prefect server, or say where it runs already."""
    console = Console(highlight=False, soft_wrap=True)
    url = ensure_server(console)
    console.print(f"Prefect UI: {url.removesuffix('/api')}   (stop it with `stagegate down`)")


def down() -> None:
    """Stop the Prefect server that `stagegate` started here, and nothing else."""
    console = Console(highlight=False, soft_wrap=True)
    record = _started()
    if record is None:
        _pid_file().unlink(missing_ok=True)
        console.print("no Prefect server of this checkout is running")
        return
    os.killpg(int(record["pid"]), signal.SIGTERM)
    for _ in range(100):
        if not _is_our_server(int(record["pid"])):
            break
        time.sleep(0.1)
    else:
        os.killpg(int(record["pid"]), signal.SIGKILL)
    _pid_file().unlink(missing_ok=True)
    console.print(f"stopped the Prefect server (process {record['pid']})")
