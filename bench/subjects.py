"""What a search for words of subjects costs at ten million messages (SPEC section 11)."""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from postroom.model.queue import DeliveryState
from postroom.store import DeliveryFilter
from postroom.store.database import open_store
from postroom.store.full_text import Fts5, TextSearch
from postroom.store.subjects import row_of
from tests import postgresql

from . import page, results
from .long_queue import SCRATCH, SEARCH_MS, STORES

_AT_ONCE = 50_000
_SEARCHES = 5

#: What `many.fill` gives as subjects: `Order N of things`, of one in a hundred thousand `Order N of porcelain`.
WORDS = {
    "a word of nearly all": DeliveryFilter(subject=("things",)),
    "a word of a hundred": DeliveryFilter(subject=("porcelain",)),
    "a number of ten": DeliveryFilter(subject=("123456",)),
    "two words": DeliveryFilter(subject=("porcelain", "order")),
    "the beginning of a word": DeliveryFilter(subject=("porc*",)),
    "the beginning of numbers": DeliveryFilter(subject=("12345*",)),
    "a word that is not there": DeliveryFilter(subject=("teapot",)),
    "a common word, held": DeliveryFilter(subject=("things",), states=(DeliveryState.HELD,)),
    "a rare word, a common domain": DeliveryFilter(subject=("porcelain",), domain="large.example"),
}


def _pages(read: Callable[[bytes], Sequence[Any]]) -> Iterator[Sequence[Any]]:
    after = b""
    while rows := read(after):
        yield rows
        after = rows[-1][0]


def fill_sqlite(file: str) -> None:
    """The words of all subjects, as the steps in the background would put them there."""
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("PRAGMA synchronous = OFF")
        (create,) = Fts5.creates
        raw.execute(create)
        query = f"SELECT id, subject FROM message WHERE id > ? ORDER BY id LIMIT {_AT_ONCE}"
        for rows in _pages(lambda after: raw.execute(query, (after,)).fetchall()):
            raw.executemany(
                "INSERT INTO subject_words (rowid, subject, message_id) VALUES (?, ?, ?)",
                [(row_of(id_), subject, id_) for id_, subject in rows],
            )
            raw.commit()


def fill_postgresql(url: str) -> None:
    """The same on PostgreSQL; its index is made when all are there."""
    import psycopg

    full_text = TextSearch()
    table, index = full_text.creates
    query = f"SELECT id, subject FROM message WHERE id > %s ORDER BY id LIMIT {_AT_ONCE}"
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute(table.encode())
        for rows in _pages(lambda after: raw.execute(query.encode(), (after,)).fetchall()):
            with (
                raw.cursor() as cursor,
                cursor.copy("COPY subject_words (rowid, message_id, subject) FROM STDIN") as copy,
            ):
                for id_, subject in rows:
                    copy.write_row((row_of(id_), id_, full_text.stored(subject)))
        raw.execute(b"SET maintenance_work_mem = '512MB'")
        raw.execute(index.encode())
        raw.execute(b"VACUUM ANALYZE subject_words")


async def timed(target: str) -> list[dict[str, Any]]:
    """Each search some times; the first, and the median, in milliseconds."""
    store = await open_store(target, None, lambda: datetime.now(UTC))
    rows = []
    try:
        for name, wanted in WORDS.items():
            spent = []
            for _ in range(_SEARCHES):
                started = time.perf_counter()
                found = await store.deliveries(wanted)
                spent.append((time.perf_counter() - started) * 1000)
            median = statistics.median(spent)
            rows.append({"what": name, "found": len(found), "first_ms": round(spent[0], 1),
                         "median_ms": round(median, 1), "met": median < SEARCH_MS})  # fmt: skip
    finally:
        await store.close()
    return rows


def _kept_of_others(rows: int, measured: Sequence[str]) -> list[dict[str, Any]]:
    """The figures of as many messages on the databases that were not measured now."""
    kept = json.loads(results.RESULTS.read_text()).get("subjects", {})
    if kept.get("rows") != rows:
        return []
    return [row for row in kept["searches"] if row["database"] not in measured]


def main(arguments: list[str]) -> int:
    """Measure, print, keep. 2 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="make bench PART=subjects", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="messages in the store")
    parser.add_argument("--databases", default=",".join(STORES), help="some of " + ", ".join(STORES))
    parser.add_argument("--dry", action="store_true", help="print only; keep no figures")
    options = parser.parse_args(arguments)
    SCRATCH.mkdir(exist_ok=True)
    figures: dict[str, Any] = {"surroundings": results.surroundings(SCRATCH), "rows": options.rows,
                               "goal_ms": SEARCH_MS, "searches": []}  # fmt: skip
    names = [name for name in options.databases.split(",") if name == "SQLite" or postgresql.programs() is not None]
    for name in names:
        with STORES[name]((options.rows,)) as targets:
            (fill_sqlite if name == "SQLite" else fill_postgresql)(targets[options.rows])
            looked = asyncio.run(timed(targets[options.rows]))
        figures["searches"] += [{"database": name, **row} for row in looked]
        for row in looked:
            print(f"{name}  {row['what']:<40}{row['median_ms']:>8.1f} ms, first {row['first_ms']:.1f}", flush=True)
    if not options.dry:
        figures["searches"] += _kept_of_others(options.rows, names)
        print(f"written: {results.keep('subjects', figures)}")
        page.write("subjects", page.subjects(figures))
    return 0 if all(row["met"] for row in figures["searches"]) else 2
