"""PostgreSQL as the store uses it, by psycopg 3; imported only where a database of that kind is named.

One connection writes and holds the lock that keeps other gateways off: whoever writes has the lock, and when the
connection is lost both are. Readers are a few connections more, which cannot write.
"""

from sqlalchemy import text

from ..schema import INDEXES, WHERE
from .connection import ReadingConnection
from .server import look
from .writing import WritingConnection, connect_writer

__all__ = ["ReadingConnection", "WritingConnection", "connect_writer", "look"]

for _index in INDEXES:
    if WHERE in _index.info:
        _index.dialect_options["postgresql"]["where"] = text(_index.info[WHERE])
