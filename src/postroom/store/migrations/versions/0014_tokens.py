"""Tokens of accounts, and consents that are waited for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add both tables."""
    op.create_table(
        "token",
        sa.Column("account_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("binding", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("refresh_expires", sa.BigInteger(), nullable=True),
        sa.Column("granted", sa.BigInteger(), nullable=True),
        sa.Column("refreshed", sa.BigInteger(), nullable=True),
        sa.Column("refused", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("claimant", sa.LargeBinary(16), nullable=True),
        sa.Column("claimed_until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("account_id"),
    )
    op.create_table(
        "consent",
        sa.Column("state", sa.LargeBinary(16), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("state"),
    )
