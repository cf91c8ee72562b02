"""Opening the store: engine with the right settings per database, migrated to head exactly once.

Not covered: which URL is meant (settings), Prefect's own database (never the same file as ours).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, create_engine, event, text

from core.errors import StorageError
from core.store.failures import plain_words, store_label
from core.store.migrate import bring_to_head
from core.store.repository import Store
from core.store.sessions import SQLITE_BEGIN
from core.store.urls import parse_store_url

BUSY_TIMEOUT_S = 30
CONNECT_TIMEOUT_S = 10
MIGRATION_LOCK_TIMEOUT_S = 120
_ADVISORY_LOCK_KEY = 0x7374616765  # "stage" in ASCII: any constant will do, as long as it stays
_ALEMBIC_IS_GLOBAL = threading.Lock()  # alembic.context is one proxy per process


def open_store(url: str) -> Store:
    """A store ready for use, created and migrated where needed. Open one in each process.

    Raises:
        ConfigError: the URL is not one of a store.
        BadInputError: the store was written by a newer stagegate, or belongs to another program.
        StorageError: locked, read-only, damaged or out of reach.
    """
    place = parse_store_url(url)
    if place.get_backend_name() == "sqlite":
        _make_parent(place)
    engine = make_engine(place)
    try:
        with (
            plain_words(place),
            _ALEMBIC_IS_GLOBAL,
            migration_lock(place),
            engine.begin() as connection,
        ):
            hold_advisory_lock(connection)
            bring_to_head(connection)
    except BaseException:
        engine.dispose()
        raise
    return Store(engine)


def make_engine(url: URL) -> Engine:
    """An engine whose connections enforce foreign keys and never wait for a lock without end."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    timeout = url.query.get("connect_timeout", str(CONNECT_TIMEOUT_S))
    engine = create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": timeout})
    event.listen(engine, "begin", _begin_postgres)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:
    # The sqlite3 module would begin transactions late and on its own; _begin_sqlite does it.
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
    finally:
        cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads and then writes fails at once when another one wrote in
    # between, whatever the busy timeout; so writers take the write lock at the start.
    mode = connection.get_execution_options().get(SQLITE_BEGIN, "IMMEDIATE")
    connection.exec_driver_sql(f"BEGIN {mode}")


def _begin_postgres(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_TIMEOUT_S}s'")


def _make_parent(url: URL) -> None:
    parent = Path(str(url.database)).parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{store_label(url)} cannot be created: {parent} is not a usable directory "
            f"({error.strerror}). Make it one, or put the store elsewhere.",
            path=str(parent),
        ) from error


@contextmanager
def migration_lock(url: URL) -> Iterator[None]:
    """One process at a time. Switching to WAL does not wait for locks, so SQLite needs this too."""
    if url.get_backend_name() != "sqlite":
        yield
        return
    lock = FileLock(f"{url.database}.lock", timeout=MIGRATION_LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise StorageError(
            f"{store_label(url)}: another process has held {lock.lock_file} for "
            f"{MIGRATION_LOCK_TIMEOUT_S} s. Wait for it or end it, then run the command again."
        ) from error
    except OSError as error:
        raise StorageError(
            f"{store_label(url)}: its lock file cannot be made ({error.strerror}). Make "
            f"{Path(lock.lock_file).parent} writable, or put the store elsewhere."
        ) from error
    try:
        yield
    finally:
        lock.release()


def hold_advisory_lock(connection: Connection) -> None:
    """PostgreSQL's side of the lock; it goes with the transaction, also in a crash."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK_KEY})
