"""Run by Alembic for each command, on the connection (and in the transaction) of the caller."""

from __future__ import annotations

from alembic import context

from core.store.migrations import VERSION_TABLE
from core.store.models import StoreModel

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=StoreModel.metadata,
    version_table=VERSION_TABLE,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
