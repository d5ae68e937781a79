"""Since when an account fails: the time that its fallback waits for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column; what fails now fails since its last failure."""
    op.add_column("circuit", sa.Column("failing_since", sa.BigInteger(), nullable=True))
    op.execute("UPDATE circuit SET failing_since = since")
