"""Store URLs: which are understood, and what to write instead of those that are not."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from core.errors import ConfigError

_EXAMPLES = "sqlite:///runs/store.db or postgresql://user:password@host/database"
_POSTGRES_NAMES = ("postgres", "postgresql", "postgresql+psycopg")


def parse_store_url(text: str) -> URL:
    """The URL in the form that the engine takes: absolute SQLite path, psycopg for PostgreSQL.

    Messages never repeat the URL, which may hold a password.

    Raises:
        ConfigError: not a URL, another kind of database, or no database named.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise _refusal(f"is not a URL; write it like {_EXAMPLES}") from None
    if url.drivername == "sqlite":
        return _sqlite_url(url)
    if url.drivername in _POSTGRES_NAMES:
        return _postgres_url(url)
    raise _refusal(f"names the database kind {url.drivername!r}; use {_EXAMPLES}")


def _sqlite_url(url: URL) -> URL:
    path = url.database
    if url.host:
        raise _refusal("has only two slashes before its path; write sqlite:/// and then the path")
    if not path or path == ":memory:":
        raise _refusal("names no file; a store must outlive its process, so give it a path")
    if path.startswith("file:") or url.query:
        raise _refusal("carries SQLite options; give the plain path alone, sqlite:///PATH")
    return url.set(database=str(Path(path).expanduser().absolute()))


def _postgres_url(url: URL) -> URL:
    if not url.database:
        raise _refusal("names no database; end it with /DATABASE")
    return url.set(drivername="postgresql+psycopg")


def _refusal(problem: str) -> ConfigError:
    return ConfigError(f"the store URL {problem}.", problems=[f"the store URL {problem}"])
