"""Alembic environment of the store; `core.store.migrate` runs it."""

from __future__ import annotations

# Not Alembic's default name: another program in the same PostgreSQL database may use that one.
VERSION_TABLE = "stagegate_version"
