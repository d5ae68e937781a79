"""Alembic's entry: runs on the connection, and in the transaction, that `migrate` has opened."""

from __future__ import annotations

from alembic import context

from postroom.crashing import reach
from postroom.store.schema import metadata

connection = context.config.attributes["connection"]
if not connection.in_transaction():
    connection.begin()
context.configure(
    connection=connection,
    target_metadata=metadata,
    transactional_ddl=True,
    on_version_apply=lambda **_: reach("D8"),
)
with context.begin_transaction():
    context.run_migrations()
