"""To whom an attempt went that the staging guard redirected."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column; what was sent before went to its recipients."""
    op.add_column("attempt", sa.Column("sent_to", sa.Text(), nullable=False, server_default=""))
