"""What all models of the store share: their own metadata, constraint names, the clock."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import MetaData
from sqlmodel import SQLModel

# Without fixed names, SQLite and PostgreSQL name constraints differently and no migration could
# drop one on both.
_NAMES = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class StoreModel(SQLModel):
    """Root of all models. Its metadata is ours alone: other users of SQLModel do not add to it."""

    metadata = MetaData(naming_convention=_NAMES)


class RecordModel(StoreModel):
    """Root of the Create and End models: unknown fields are refused, values do not change."""

    model_config = {"extra": "forbid", "frozen": True}


def utc_now() -> datetime:
    """The time now, with its time zone, in UTC."""
    return datetime.now(UTC)
