"""When retry windows of an account stood still; messages with rules of retrying of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_DEFERRED = "state = 'deferred'"
_OWN_GIVE_UP = "own_give_up IS NOT NULL AND state IN ('queued','deferred','held')"


def upgrade() -> None:
    """Add columns and a table; the index of retry windows is made anew, by lane."""
    op.add_column("message", sa.Column("retry_schedule", sa.Text(), nullable=False, server_default=""))
    op.add_column("message", sa.Column("retry_window", sa.BigInteger(), nullable=True))
    op.add_column("delivery", sa.Column("own_window", sa.BigInteger(), nullable=True))
    op.add_column("delivery", sa.Column("own_give_up", sa.BigInteger(), nullable=True))
    op.drop_index("delivery_window", "delivery")
    _index("delivery_window", ["lane", "own_window", "window_from"], _DEFERRED)
    _index("delivery_give_up", ["own_give_up"], _OWN_GIVE_UP)
    op.create_table(
        "standstill",
        sa.Column("lane", sa.Integer(), nullable=False),
        sa.Column("pauses", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("lane"),
        sqlite_with_rowid=False,
    )


def _index(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "delivery", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
