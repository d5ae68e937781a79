"""What the repeat guards of applications count."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the table and its index."""
    op.create_table(
        "repetition",
        sa.Column("application_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(16), nullable=False),
        sa.Column("bucket", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("ends", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("application_id", "digest", "bucket"),
        sqlite_with_rowid=False,
    )
    op.create_index("repetition_ends", "repetition", ["ends"])
