"""Migrations without an alembic.ini: the environment lies in `core/store/migrations`.

A new revision is a new file in `migrations/versions`, written by hand; the contract test compares
models and migrations on both databases and prints what is missing. Revisions name plain SQLAlchemy
types, never our models, so that old ones keep meaning what they meant.
"""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from core.errors import BadInputError
from core.store.failures import store_label
from core.store.migrations import VERSION_TABLE
from core.store.models import StoreModel


def alembic_config(connection: Connection) -> Config:
    """Config for Alembic's commands (upgrade, downgrade, check) on an open connection."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "core.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


def bring_to_head(connection: Connection) -> None:
    """Create or upgrade the tables, in the caller's transaction; nothing is done at head.

    Raises:
        BadInputError: the store has a revision that this code does not know, or tables of others.
    """
    config = alembic_config(connection)
    script = ScriptDirectory.from_config(config)
    present = _revisions(connection)
    if present == set(script.get_heads()):
        # Matches nothing, but asks for write access: a read-only store is better found out now.
        connection.execute(text(f"DELETE FROM {VERSION_TABLE} WHERE 1 = 0"))
        return
    if not present:
        _refuse_tables_of_others(connection)
    _refuse_unknown(present, script, connection)
    command.upgrade(config, "head")


def _revisions(connection: Connection) -> set[str]:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return set(context.get_current_heads())


def _refuse_unknown(present: set[str], script: ScriptDirectory, connection: Connection) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    unknown = sorted(present - known)
    if unknown:
        raise BadInputError(
            f"{store_label(connection.engine.url)} was written by a newer stagegate: it is at "
            f"revision {', '.join(unknown)}, this version knows up to {script.get_current_head()}. "
            "Update stagegate, or name another store.",
            unknown_revisions=unknown,
        )


def _refuse_tables_of_others(connection: Connection) -> None:
    """A file is ours alone; a PostgreSQL database may be shared while no table name is taken."""
    present = set(inspect(connection).get_table_names()) - {VERSION_TABLE}
    if connection.dialect.name != "sqlite":
        present &= {*StoreModel.metadata.tables, "alembic_version"}
    if present:
        raise BadInputError(
            f"{store_label(connection.engine.url)} belongs to another program: it already holds "
            f"{', '.join(sorted(present)[:5])}. Give stagegate a file or database of its own.",
            tables=sorted(present),
        )
