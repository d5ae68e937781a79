"""What the store asks of a database's driver, so that its verbs and their statements are written once.

A statement writes `?` for a value, or `:name` for one of a mapping. Rows are tuples. What a driver raises is a subclass
of its `Error`; only the driver's own module knows more of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import sqlalchemy

from ..errors import GatewayError
from .full_text import FullText
from .rows import Rows

Values = Sequence[Any] | Mapping[str, Any]


class Cursor(Protocol):
    """The rows that a statement gave."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""

    def __iter__(self) -> Iterator[Any]:
        """The rows, one after the other."""


class Connection(Protocol):
    """A connection as verbs see it; who commits is not their business."""

    @property
    def core(self) -> sqlalchemy.Connection:
        """SQLAlchemy's connection on the same."""

    @property
    def full_text(self) -> FullText:
        """How words are searched."""

    def execute(self, sql: str, values: Any = ..., /) -> Cursor:
        """Run a statement for its rows."""

    def change(self, sql: str, values: Any = ..., /) -> int:
        """Run a statement; how many rows it changed."""

    def change_each(self, sql: str, each: Iterable[Any], /) -> int:
        """Run a statement for each of the sets of values; how many rows were changed."""

    def insert(self, sql: str, values: Any, /) -> bool:
        """Insert a row; False where its key is taken, and nothing is changed then."""

    def run(self, rows: Rows, values: list[Any], ahead: tuple[Any, ...] = ..., /) -> int:
        """Run a statement for many rows, given one after the other in `values` (`ahead`: values that its beginning
        asks for); how many rows were changed."""

    def returned(self, rows: Rows, values: list[Any], /) -> list[Any]:
        """As `run`, for a statement with RETURNING: its rows."""

    def is_roomy(self) -> bool:
        """Whether there is room that `shrink` would give back."""

    def shrink(self) -> bool:
        """Give a little of the room that nothing uses back to the file system; whether there is more of it."""

    def has_table(self, name: str, /) -> bool:
        """Whether there is a table of that name."""

    def no_room(self) -> Exception:
        """What the driver says when the disk is full, for the points of `crashing`."""


class Upkeep(Protocol):
    """What a database asks for between its batches; all but `wrote` in the writer's thread."""

    def wrote(self, operations: int, size_bytes: int) -> None:
        """A batch of that size begins."""

    @property
    def is_due(self) -> bool:
        """Whether `work` comes before the next batch."""

    @property
    def is_left(self) -> bool:
        """Whether there is something for an idle moment."""

    def work(self) -> None:
        """What cannot wait for an idle moment."""

    def tidy(self, *, broken: bool) -> None:
        """What is done in an idle moment and at the end; nothing of it once the store is broken."""


class WritingConnection(Connection, Protocol):
    """The connection that writes."""

    @property
    def Error(self) -> type[Exception]:
        """What all its errors are."""

    @property
    def OperationalError(self) -> type[Exception]:
        """Errors of the database rather than of a statement."""

    @property
    def writes_on_loop(self) -> bool:
        """Whether a statement waits for nothing but the processor, so that a few may run on the loop."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    def begin(self, token: int = ...) -> None:
        """Begin one that writes, for who holds the fencing token (0: nobody yet)."""

    def begin_migration(self) -> None:
        """Begin one that changes the tables, and may take long."""

    def commit(self) -> None:
        """Commit; returns when it is durable. One that raises leaves the transaction to be rolled back."""

    def rollback(self) -> None:
        """Give up the transaction, if there is one."""

    def with_care(self, *, content_passes: bool) -> AbstractContextManager[None]:
        """Around a batch in the thread, which may wait; `content_passes`: much of it is content, read again once."""

    def upkeep(self, on_fatal: Callable[[BaseException], None]) -> Upkeep:
        """What it asks for between batches; `on_fatal` is called with an error after which nothing can be trusted."""

    def is_in_doubt(self, error: BaseException) -> bool:
        """Whether a commit that raised it may have been kept, as `settle` may learn."""

    def settle(self) -> bool | None:
        """Whether the commit in doubt was kept; None: not known yet. Raises an error after which nothing can be
        trusted, as `is_fatal` says."""

    def is_fatal(self, error: BaseException) -> bool:
        """Whether nothing can be trusted after it."""

    def storage_error(self, error: BaseException, *, committing: bool = False) -> GatewayError:
        """What one of its errors means to those who wait."""

    def close(self) -> None:
        """Close it."""

    def abandon(self) -> None:
        """Leave it after a fatal error, and touch nothing any more."""


class ReadingConnection(Connection, Protocol):
    """A connection that cannot write."""

    @property
    def Error(self) -> type[Exception]:
        """What all its errors are."""

    def snapshot(self, seconds: float) -> AbstractContextManager[None]:
        """All reads within see the same moment; together they take at most `seconds`."""

    def was_cut(self, error: BaseException) -> bool:
        """Whether it means that a read took too long."""

    def storage_error(self, error: BaseException) -> GatewayError:
        """What one of its errors means to those who wait."""

    def forget_pages(self) -> None:
        """Keep nothing in memory of what was read: nobody reads it again."""

    def close(self) -> None:
        """Close it."""
