"""Work pools and deployments on the server, brought to what prefect.yaml says and no further.

What a person changed in the UI stays: nothing is deployed while the sources are the same, and when
they are not, schedules and paused deployments keep their switches.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Console

from core.errors import BadInputError, StagegateError
from core.settings import get_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

CPU = "cpu"
GPU = "gpu"
TAG = "stagegate"
"""Tag of our deployments, and so of their flow runs."""
DESCRIPTIONS = {
    CPU: "Orchestrators: light, many at a time; they end while they wait at a gate.",
    GPU: "Work on a device: one flow run per device at a time.",
}
# What a deployment is made of: flows, and the types of their parameters.
SOURCES = ("flows", "core", "reviews")
VERSION = "STAGEGATE_SOURCE_VERSION"
SHOWN_LINES = 20

Key = tuple[str, str]
"""Entrypoint and name of a deployment."""


def ensure_pools(client: SyncPrefectClient, devices: int) -> None:
    """Create the work pools, or bring them to their limits: `gpu` runs `devices` flow runs at a time."""
    _ensure_pool(client, CPU, None)
    _ensure_pool(client, GPU, devices)


def _ensure_pool(client: SyncPrefectClient, name: str, limit: int | None) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    try:
        known = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(name=name, type="process", description=DESCRIPTIONS[name], concurrency_limit=limit)
        )
        return
    if limit is not None and known.concurrency_limit != limit:
        client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))


def deploy(client: SyncPrefectClient, console: Console) -> None:
    """Deploy what prefect.yaml names, if it or the sources changed since; switches stay as they are.

    Raises:
        BadInputError: prefect.yaml is missing or unreadable.
        StagegateError: `prefect deploy` failed; its last lines are in the message.
    """
    wanted, version = _wanted(), source_version()
    known = _known(client, wanted)
    if all(key in known and known[key].version == version for key in wanted):
        console.print(f"deployments: {len(wanted)}, unchanged")
        return
    console.print(f"deploying {', '.join(name for _, name in wanted)}")
    _run_prefect_deploy(version)
    # Killed between these two, a schedule is as prefect.yaml has it: off, which starts nothing.
    _restore_switches(client, known, _known(client, wanted))


def source_version() -> str:
    """First 12 hex digits of a digest over prefect.yaml and the sources that deployments are made of."""
    root = get_settings().root
    digest = hashlib.sha256(_prefect_file().read_bytes())
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"\0{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _prefect_file() -> Path:
    path = get_settings().root / "prefect.yaml"
    if not path.is_file():
        raise BadInputError(
            f"there is no {path}; run stagegate from its checkout, or set STAGEGATE_ROOT to it"
        )
    return path


def _wanted() -> list[Key]:
    path = _prefect_file()
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
        return [(entry["entrypoint"], entry["name"]) for entry in entries]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise BadInputError(f"{path} cannot be read: {error!r}; `git diff {path.name}` may help") from error


def _known(client: SyncPrefectClient, wanted: list[Key]) -> dict[Key, DeploymentResponse]:
    """The deployments of prefect.yaml that the server has."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    named = DeploymentFilter(name=DeploymentFilterName(any_=[name for _, name in wanted]))
    found = client.read_deployments(deployment_filter=named)
    return {key: d for d in found if (key := (d.entrypoint or "", d.name)) in wanted}


def _run_prefect_deploy(version: str) -> None:
    environment = {**os.environ, VERSION: version}
    # Left out so that prefect.yaml keeps the placeholder, which each worker fills with its own checkout.
    environment.pop("STAGEGATE_ROOT", None)
    run = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=get_settings().root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        last = "\n".join((run.stdout + run.stderr).splitlines()[-SHOWN_LINES:])
        raise StagegateError(
            f"`prefect deploy --all` ended with {run.returncode}; its last lines:\n{last}\n"
            "Mend that and run `stagegate up` again; what runs already goes on."
        )


def _restore_switches(
    client: SyncPrefectClient,
    before: dict[Key, DeploymentResponse],
    after: dict[Key, DeploymentResponse],
) -> None:
    """Give deployments and schedules the switches that they had; schedules are told apart by slug.

    `prefect deploy` resumes what is paused and sets schedules as prefect.yaml has them.
    """
    for key, old in before.items():
        new = after[key]
        if old.paused:
            client.pause_deployment(new.id)
        switches = {schedule.slug: schedule.active for schedule in old.schedules}
        for schedule in new.schedules:
            active = switches.get(schedule.slug, schedule.active)
            if active != schedule.active:
                client.update_deployment_schedule(new.id, schedule.id, active=active)
