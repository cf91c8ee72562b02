"""Cache and retry choices of all tasks, in one place.

A cached result is reused when the inputs, the task's own source and the source of everything in the
named `core` packages are the same. Prefect's `TASK_SOURCE` alone sees the task's body only, so that an
edit in `core` would return yesterday's answer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from prefect.cache_policies import INPUTS, TASK_SOURCE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.tasks import Task

from core.errors import TransientError

CORE = Path(__file__).resolve().parents[1] / "core"
SOURCE_SUFFIXES = (".py", ".yaml", ".jsonl", ".txt")
RETRIES = 2
RETRY_DELAYS_S: list[float] = [5, 30]


@cache
def source_digest(packages: tuple[str, ...]) -> str:
    """sha256 over the source and data files of `core` packages (or single modules)."""
    digest = hashlib.sha256()
    for package in sorted(packages):
        place = CORE / package
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        for path in files:
            if path.is_file() and path.suffix in SOURCE_SUFFIXES:
                digest.update(str(path.relative_to(CORE)).encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass
class SourceOf(CachePolicy):
    """Cache key part: a digest of the source that a task calls."""

    packages: tuple[str, ...] = ()

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **_: Any,
    ) -> str | None:
        return source_digest(self.packages)


def cached_on(*packages: str) -> CachePolicy:
    """Inputs, the task's source, and the source of the named parts of `core`."""
    return INPUTS + TASK_SOURCE + SourceOf(packages=packages)


def is_transient(_: Task[Any, Any], __: TaskRun, state: State[Any]) -> bool:
    """Retry only what a later try can mend."""
    try:
        state.result()
    except TransientError:
        return True
    except BaseException:
        return False
    return False
