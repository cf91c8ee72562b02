"""<home>/stack.json: what `stagegate up` started here, and the lock under which it is changed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
from pydantic import BaseModel, Field, ValidationError
from rich.console import Console

from core.errors import DataFileError, TransientError
from core.files import write_text
from core.settings import get_settings
from deployments.processes import ProcessId

LOCK_TIMEOUT_S = 300.0


class Worker(BaseModel):
    """One worker process, serving a work pool, on one device or on none in particular."""

    name: str
    pool: str
    device: str | None
    process: ProcessId


class Stack(BaseModel):
    """What runs for this checkout. `server` is None where somebody else's server is used."""

    mark: str = Field(default_factory=lambda: uuid.uuid4().hex)
    api_url: str | None = None
    host: str | None = None
    port: int | None = None
    server: ProcessId | None = None
    workers: list[Worker] = []

    @property
    def live_workers(self) -> list[Worker]:
        """The workers whose processes run."""
        return [worker for worker in self.workers if worker.process.alive]

    def save(self) -> None:
        """Write the record, whole or not at all."""
        write_text(record_path(), self.model_dump_json(indent=2) + "\n")


def record_path() -> Path:
    """Where the record is."""
    return get_settings().home.absolute() / "stack.json"


def read_stack() -> Stack:
    """The recorded stack; an empty one where there is no record.

    Raises:
        DataFileError: the record cannot be read.
    """
    path = record_path()
    try:
        return Stack.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Stack()
    except (OSError, ValidationError) as error:
        raise DataFileError(
            f"{path} cannot be read, so it is not known what `stagegate up` started here: {error}\n"
            "End its processes by hand (`ps` shows them as `prefect server` and `prefect worker`), "
            "then delete the file.",
            lines=[],
        ) from error


@contextmanager
def locked(console: Console) -> Iterator[None]:
    """Hold the stack of this checkout; a second process waits for the first.

    Raises:
        TransientError: the other one did not finish within 5 minutes.
    """
    path = record_path().with_name("stack.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            console.print("another `stagegate` starts or stops this stack; waiting for it")
            lock.acquire(timeout=LOCK_TIMEOUT_S)
    except filelock.Timeout as error:
        raise TransientError(
            f"another `stagegate` has held {path} for {LOCK_TIMEOUT_S:.0f} s; end it and try again"
        ) from error
    try:
        yield
    finally:
        lock.release()
