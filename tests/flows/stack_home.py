"""A checkout of two flows, and `stagegate` run on it from outside, as people run it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FLOWS = """
import os, time
from prefect import flow

@flow(name="quick")
def quick() -> str:
    return f"{os.getcwd()} {os.environ['STAGEGATE_HOME']}"

@flow(name="slow")
def slow() -> None:
    for _ in range(3000):
        time.sleep(0.1)

@flow(name="broken")
def broken() -> None:
    raise ValueError("on purpose")
"""
YAML = """
name: probe
pull:
  - prefect.deployments.steps.set_working_directory: {directory: "{{ $STAGEGATE_ROOT }}"}
definitions:
  common: &common {version: "{{ $STAGEGATE_SOURCE_VERSION }}", tags: [stagegate], work_pool: {name: cpu}}
deployments:
  - <<: *common
    name: quick
    entrypoint: flows.probe.quick
    schedules: [{slug: nightly, cron: "0 2 * * *", timezone: UTC, active: false}]
  - {<<: *common, name: slow, entrypoint: flows.probe.slow}
  - {<<: *common, name: broken, entrypoint: flows.probe.broken}
"""


@dataclass
class Checkout:
    """A checkout in a temporary folder with a home and a port of its own."""

    folder: Path
    password: str | None = None
    port: int = field(default_factory=lambda: free_port())

    def __post_init__(self) -> None:
        (self.folder / "flows").mkdir()
        (self.folder / "flows" / "__init__.py").touch()
        (self.folder / "flows" / "probe.py").write_text(FLOWS)
        (self.folder / "prefect.yaml").write_text(YAML)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def environment(self) -> dict[str, str]:
        own = {"STAGEGATE_ROOT": str(self.folder), "STAGEGATE_HOME": str(self.home)}
        if self.password:
            own["STAGEGATE_SERVER_PASSWORD"] = self.password
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        return {**kept, **own, "CUDA_VISIBLE_DEVICES": ""}

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("stagegate")), *arguments]

    def run(self, *arguments: str, code: int = 0) -> str:
        """Output of one command, which has to end with that code."""
        run = subprocess.run(
            self.command(*arguments),
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert run.returncode == code, f"{arguments}: {run.returncode}\n{run.stdout}{run.stderr}"
        assert "Traceback" not in run.stdout + run.stderr
        return run.stdout + run.stderr

    def client(self) -> Any:
        from prefect.client.orchestration import SyncPrefectClient

        return SyncPrefectClient(self.url, auth_string=f"admin:{self.password}" if self.password else None)

    def submit(self, name: str) -> Any:
        """Id of a new flow run of one of the deployments."""
        with self.client() as client:
            deployment = client.read_deployment_by_name(f"{name}/{name}")
            return client.create_flow_run_from_deployment(deployment.id).id

    def state_of(self, run_id: Any) -> Any:
        with self.client() as client:
            return client.read_flow_run(run_id).state

    def ends_in(self, run_id: Any, *states: str) -> Any:
        """The state of a flow run once it is one of those."""
        until(lambda: self.state_of(run_id).name in states, f"{run_id} in {states}")
        return self.state_of(run_id)


def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.2)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
