"""Tags, and what searches go by. The indexes fill while the gateway runs: what is there is not searchable yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_SEARCHABLE = "searchable > 0"


def upgrade() -> None:
    """Add the columns and the indexes."""
    op.add_column("message", sa.Column("tag", sa.Text(), nullable=False, server_default=""))
    for table in ("message", "delivery"):
        op.add_column(table, sa.Column("searchable", sa.Integer(), nullable=False, server_default="0"))
    collated = ' COLLATE "C"' if op.get_bind().dialect.name == "postgresql" else ""
    domain = "substr(recipient, length(rtrim(recipient, replace(recipient, '@', ''))) + 1)"
    _index("message_unsearchable", "message", ["id"], "searchable = 0")
    _index("message_sender", "message", ["substr(id, 1, 3)", f"lower(reverse_path{collated})"])
    _index("message_header_id", "message", ["substr(id, 1, 3)", f"lower(header_message_id{collated})"])
    _index("message_application", "message", ["application", "id"])
    _index("message_tag", "message", ["tag", "id"], "tag <> ''")
    _index("delivery_recipient", "delivery", ["substr(message_id, 1, 3)", f"lower(recipient{collated})"])
    _index("delivery_domain", "delivery", ["substr(message_id, 1, 3)", f"lower({domain}{collated})"])
    _index("delivery_lane", "delivery", ["lane", "message_id", "n"])


def _index(name: str, table: str, keys: list[str], where: str = _SEARCHABLE) -> None:
    columns = [sa.text(key) if "(" in key else key for key in keys]
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
