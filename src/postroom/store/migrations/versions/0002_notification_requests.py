"""What senders ask of notifications (RFC 3461), and the DKIM hash of bodies kept in chunks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns; what is there asked for nothing."""
    for table, name in (("message", "ret"), ("message", "envid"), ("delivery", "notify"), ("delivery", "orcpt")):
        op.add_column(table, sa.Column(name, sa.Text(), nullable=False, server_default=""))
    op.add_column("content", sa.Column("body_hash", sa.LargeBinary(length=32), nullable=True))
