"""Database errors in plain words: what happened to which store, and what to do next.

Passing faults (a lost connection, a deadlock) become TransientError, which the tasks retry; a store
that cannot be used as it is becomes StorageError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import IntegrityError as RowRefused
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from core.errors import BadInputError, StagegateError, StorageError, TransientError

# By the start of SQLite's error name, which every exception of sqlite3 carries since Python 3.11.
_SQLITE_MEANINGS = {
    "SQLITE_BUSY": (
        "is locked: another process has been writing to it for too long. Close what holds it open "
        "(an SQL shell, a stopped run), then run the command again"
    ),
    "SQLITE_LOCKED": "is locked by this process itself. Run the command again",
    "SQLITE_READONLY": ("is read-only. Make the file and its directory writable, or put the store elsewhere"),
    "SQLITE_CANTOPEN": ("cannot be opened. Check that it is a file and that its directory can be written"),
    "SQLITE_NOTADB": (
        "is not a SQLite database. Restore it from a backup, or move it away and a new one is made"
    ),
    "SQLITE_CORRUPT": (
        "is damaged. Restore it from a backup, or save what is left with `sqlite3 FILE .recover`"
    ),
    "SQLITE_FULL": "does not fit: the disk is full. Free some space, then run the command again",
    "SQLITE_IOERR": "cannot be read or written (disk I/O error). Check the disk that it lies on",
}

# PostgreSQL: class 40 is a rolled-back transaction, 55P03 a lock that was not free in time, 57P0x
# a server that goes down or comes up, 53300 no free connection slot, class 08 a broken connection.
_PASSING_STATES = ("40", "55P03", "57P0", "53300", "08")


def store_label(url: URL) -> str:
    """The store as people know it: the file of SQLite, else the URL without its password."""
    if url.get_backend_name() == "sqlite":
        return f"store {url.database}"
    return f"store {url.render_as_string(hide_password=True)}"


@contextmanager
def plain_words(url: URL) -> Iterator[None]:
    """Run a block of database work and raise its errors as ours.

    Raises:
        StorageError: the store is locked, read-only, damaged, full or out of reach.
        TransientError: the same work may succeed when it is tried again.
        BadInputError: the database refused a row that breaks its rules.
    """
    try:
        yield
    except PoolTimeoutError as error:
        label = store_label(url)
        raise TransientError(f"{label}: no free connection in time; try again") from error
    except DBAPIError as error:
        raise _translated(error, url) from error


def _translated(error: DBAPIError, url: URL) -> StagegateError:
    label = store_label(url)
    cause = " ".join(str(error.orig).split())
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    for prefix, meaning in _SQLITE_MEANINGS.items():
        if name.startswith(prefix):
            return StorageError(f"{label} {meaning}.", store=label, cause=cause)
    if _is_passing(error):
        return TransientError(f"{label}: {cause}; try again", store=label, cause=cause)
    if isinstance(error, (RowRefused, DataError)):
        return BadInputError(f"{label} refused the record: {cause}", store=label, cause=cause)
    advice = "Check that its server runs and that the URL, user and password are right"
    return StorageError(f"{label} cannot be used: {cause}. {advice}.", store=label, cause=cause)


def _is_passing(error: DBAPIError) -> bool:
    state = str(getattr(error.orig, "sqlstate", None) or "")
    return error.connection_invalidated or state.startswith(_PASSING_STATES)
