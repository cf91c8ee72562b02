"""Transactions on the store: one session each, errors in plain words, safe across a fork."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import Engine
from sqlmodel import Session

from core.store.failures import plain_words
from core.store.models import StoreModel, utc_now

PublicModel = TypeVar("PublicModel", bound=StoreModel)

SQLITE_BEGIN = "stagegate_sqlite_begin"


class SessionSource:
    """Gives out transactions; `Store` adds the verbs.

    Other parts of the product put several writes into one transaction by taking the session from
    `transaction()`.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock
        self._reading = engine.execution_options(**{SQLITE_BEGIN: "DEFERRED"})
        self._owner_pid = os.getpid()

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session to write with: committed at the end of the block, rolled back on any error.

        Raises:
            StorageError: the store cannot be written.
            TransientError: a passing fault; nothing was written.
        """
        with self._session(self._engine) as session:
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A session to read with, which never waits for writers."""
        with self._session(self._reading) as session:
            yield session

    @contextmanager
    def _session(self, engine: Engine) -> Iterator[Session]:
        self._leave_connections_of_parent()
        with (
            plain_words(engine.url),
            Session(engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def _leave_connections_of_parent(self) -> None:
        # A connection used on both sides of a fork loses locks (SQLite) or mixes replies
        # (PostgreSQL). The child forgets them without closing, the parent goes on with them.
        if self._owner_pid != os.getpid():
            self._engine.dispose(close=False)
            self._owner_pid = os.getpid()

    def close(self) -> None:
        """Close all connections. The store can be used again afterwards."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def saved(row: StoreModel, public: type[PublicModel], *, session: Session) -> PublicModel:
    """The row as it is stored at the end of the transaction, with its id."""
    session.add(row)
    session.flush()
    return public.model_validate(row)


def as_public(rows: Sequence[StoreModel], public: type[PublicModel]) -> list[PublicModel]:
    """The rows as Public models, in the same order."""
    return [public.model_validate(row) for row in rows]
