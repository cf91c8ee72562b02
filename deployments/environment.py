"""What Prefect's processes of this checkout are told: all of it through the environment.

Passwords travel this way too, never on a command line, which every user of a machine can read.
"""

from __future__ import annotations

import os
import socket

from core.settings import get_settings

USER = "admin"
MARK = "STAGEGATE_STACK"
"""Variable that every process of a stack carries and hands down, so that all of them can be found."""
WILDCARDS = ("0.0.0.0", "::")

# Why each of these: docs/architecture.md, "Prefect settings".
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # A resumed run is picked up within 3 s; the default of 10 s makes people click twice.
    "PREFECT_WORKER_QUERY_SECONDS": "2",
}


def prefect_environment() -> dict[str, str]:
    """Environment for Prefect in this checkout: its home, its results, its password, quiet defaults.

    What the user has set already stays.
    """
    home = (get_settings().home / "prefect").absolute()
    defaults = {
        "PREFECT_HOME": str(home),
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "storage"),
        **QUIET,
    }
    if (login := auth_string()) is not None:
        defaults["PREFECT_API_AUTH_STRING"] = login
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


def auth_string() -> str | None:
    """`user:password` of the server, None where no password is set."""
    password = get_settings().server_password
    secret = password.get_secret_value() if password is not None else ""
    return f"{USER}:{secret}" if secret else None


def server_environment(host: str, port: int, mark: str) -> dict[str, str]:
    """Whole environment of a server process that listens there."""
    shown = socket.gethostname() if host in WILDCARDS else host
    # Left alone, Prefect tells browsers to ask port 4200, or http://0.0.0.0, which is their own machine.
    own = {MARK: mark, "PREFECT_UI_URL": f"http://{shown}:{port}", "PREFECT_UI_API_URL": "/api"}
    if (login := auth_string()) is not None:
        own["PREFECT_SERVER_API_AUTH_STRING"] = login
    return {**os.environ, **prefect_environment(), **own}


def worker_environment(api_url: str, device: str | None, mark: str) -> dict[str, str]:
    """Whole environment of a worker, and so of its flow runs, on one device or on none in particular.

    Paths are absolute: flow runs are to find the same store whatever folder they run in.
    """
    settings = get_settings()
    own = {
        MARK: mark,
        "PREFECT_API_URL": api_url,
        "STAGEGATE_ROOT": str(settings.root.absolute()),
        "STAGEGATE_HOME": str(settings.home.absolute()),
        "STAGEGATE_CACHE_DIR": str(settings.cache_dir.absolute()),
    }
    if device is not None:
        own["CUDA_VISIBLE_DEVICES"] = device
    return {**os.environ, **prefect_environment(), **own}
