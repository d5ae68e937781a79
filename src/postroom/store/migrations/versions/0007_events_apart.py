"""Events about no message are found, and removed when they are old."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the index."""
    where = sa.text("message_id IS NULL")
    op.create_index("event_apart", "event", ["id"], sqlite_where=where, postgresql_where=where)
