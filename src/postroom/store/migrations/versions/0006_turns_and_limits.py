"""Flows that take turns, where a delivery belongs while another account sends it, and what limits count."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add columns and a table; the index of what waits is made anew, by flow."""
    op.add_column("message", sa.Column("named", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("delivery", sa.Column("flow", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("delivery", sa.Column("home", sa.Integer(), nullable=True))
    op.execute(
        "UPDATE delivery SET flow = (SELECT application_id FROM message WHERE message.id = delivery.message_id)"
        " WHERE state IN ('queued','sending','deferred','held')"
    )
    op.drop_index("delivery_due", "delivery")
    waiting = sa.text("state IN ('queued','deferred')")
    op.create_index(
        "delivery_due",
        "delivery",
        ["lane", "priority", "flow", "due", "message_id", "n"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    away = sa.text("home IS NOT NULL AND state IN ('queued','deferred')")
    op.create_index("delivery_away", "delivery", ["home", "message_id", "n"], sqlite_where=away, postgresql_where=away)
    op.create_table(
        "usage",
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("span", sa.Text(), nullable=False),
        sa.Column("bucket", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("ends", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("meter", "span", "bucket"),
        sqlite_with_rowid=False,
    )
