"""Processes of a stack: started detached, known again by pid and start, ended with all they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from deployments.environment import MARK

GRACE_S = 10.0
# Linux derives the start of a process from a boot time that may move by a tick of the clock.
SAME_START_S = 1.0
FLOW_RUN_ID = "PREFECT__FLOW_RUN_ID"


class ProcessId(BaseModel):
    """One process, told apart from a later one with the same pid by when it started (Unix seconds)."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started_s: float

    @property
    def alive(self) -> bool:
        """Whether that process, and not another one with its number, is running."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_s) <= SAME_START_S
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


def start(command: Sequence[str], cwd: Path, log: Path, environment: Mapping[str, str]) -> ProcessId:
    """Start a process that outlives this one, in a session of its own; its output goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
        )
    return ProcessId(pid=process.pid, started_s=psutil.Process(process.pid).create_time())


def marked(mark: str) -> list[psutil.Process]:
    """Every running process that carries the mark of a stack, orphans included."""
    return [p for p in psutil.process_iter() if _variable(p, MARK) == mark]


def flow_run_ids(processes: Iterable[psutil.Process]) -> set[str]:
    """Ids of the flow runs that these processes work on."""
    return {run for p in processes if (run := _variable(p, FLOW_RUN_ID)) is not None}


def _variable(process: psutil.Process, name: str) -> str | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        value: str | None = process.environ().get(name)
        return value
    except (psutil.Error, OSError):  # gone meanwhile, or another user's
        return None


def end(processes: Sequence[psutil.Process], grace_s: float = GRACE_S) -> int:
    """SIGTERM for each, SIGKILL for the groups of those still there after `grace_s`; how many that was.

    One SIGTERM only: a second one makes a Prefect worker kill itself before it has reported its runs.
    """
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + grace_s
    while (left := [p for p in processes if _runs(p)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        _kill_group(process)
    psutil.wait_procs(left, timeout=GRACE_S)
    return len(left)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _kill_group(process: psutil.Process) -> None:
    """SIGKILL for a process, and for its whole group where it leads one."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
