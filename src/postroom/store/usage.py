"""What limits count: rows of `usage`, added to in the transactions of intake and outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from ..model.usage import LAST, MESSAGES_AT, RECIPIENTS_AT, Usage, lane_meter
from ..policy.limits import added
from . import repetitions
from .readers import Reader
from .rows import Rows
from .schema import SENDING_SQL, micros
from .writer import Transaction

#: Rows removed in one step.
STEP = 1000

#: How long a crash's sends are kept, in microseconds: longer than any day of any zone.
_TWO_DAYS = 2 * 86_400_000_000

_ADD = Rows(
    "INSERT INTO usage (meter, span, bucket, count, ends) ",
    "ttiii",
    " ON CONFLICT (meter, span, bucket) DO UPDATE SET ends = excluded.ends, count = CASE"
    f" WHEN excluded.span <> '{LAST}' THEN usage.count + excluded.count"
    " WHEN excluded.count > usage.count THEN excluded.count ELSE usage.count END",
)


_LATEST = (
    f"SELECT max(CASE WHEN span = '{LAST}' THEN count WHEN span IN ('{MESSAGES_AT}', '{RECIPIENTS_AT}') THEN bucket"
    " ELSE 0 END) FROM usage"
)


def keep(transaction: Transaction, usage: Iterable[Usage]) -> None:
    """Add rows to those that are there."""
    values = [value for row in added(usage) for value in (row.meter, row.span, row.bucket, row.count, row.ends)]
    if values:
        transaction.raw.run(_ADD, values)


def count(usage: Iterable[Usage]) -> Callable[[Transaction], None]:
    """Work for the writer: `keep`, by itself."""
    return lambda transaction: keep(transaction, usage)


def count_under_way(transaction: Transaction, token: int, now: datetime) -> None:
    """What is `sending` under a token older than `token` may have started at any time until now, and counts as sent
    then; the clock may stand before the last send on record."""
    (last,) = transaction.raw.execute(_LATEST).fetchone()
    at = max(micros(now), last or 0)
    rows = transaction.raw.execute(
        "SELECT lane, count(DISTINCT message_id), count(*) FROM delivery"
        f" WHERE {SENDING_SQL} AND token < ? GROUP BY lane",
        (token,),
    ).fetchall()
    ends = at + _TWO_DAYS
    for lane, messages, recipients in rows:
        meter = lane_meter(lane)
        found = [Usage(meter, MESSAGES_AT, at, messages, ends), Usage(meter, RECIPIENTS_AT, at, recipients, ends)]
        keep(transaction, found)


def read_usage(reader: Reader) -> list[Usage]:
    """Every row."""
    rows = reader.raw.execute("SELECT meter, span, bucket, count, ends FROM usage")
    return [Usage(meter, span, bucket, count, ends) for meter, span, bucket, count, ends in rows]


def any_worthless(reader: Reader, before: int) -> bool:
    """Whether `forget` would find anything."""
    return any(
        reader.raw.execute(f"SELECT 1 FROM {table} WHERE ends <= ? LIMIT 1", (before,)).fetchone() is not None
        for table in ("usage", "repetition")
    )


def forget(before: int) -> Callable[[Transaction], int]:
    """Work for the writer: remove rows that were worthless before that time, some at a time; how many."""

    def work(transaction: Transaction) -> int:
        return repetitions.forget(transaction, before, STEP) + transaction.raw.change(
            "DELETE FROM usage WHERE (meter, span, bucket) IN"
            " (SELECT meter, span, bucket FROM usage WHERE ends <= ? LIMIT ?)",
            (before, STEP),
        )

    return work
