"""A start with a long queue: how soon the listener answers and the first message leaves, and what memory it takes."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.ids import new_message_id
from postroom.model.queue import LaneId, NewDelivery, NewMessage, PriorityClass
from postroom.store.database import Database, open_store

from . import page, results
from .gateways import MeasuredGateway, Postroom
from .process_tree import resident_and_peak_bytes
from .relay import running
from .traffic import RECIPIENT, SENDER, Sink, Void, answers, wait_until

WAITING = 100_000
FEW = 1_000

LISTENER_SECONDS = 5.0
DELIVERY_SECONDS = 10.0
MEMORY_MIB = 160.0
GROWTH_MIB = 48.0

_AT_ONCE = 500
_HEAD = b"From: <sender@source.example>\r\nTo: <recipient@sink.example>\r\nSubject: a backlog\r\n\r\n"
_BODY = (b"x" * 70 + b"\r\n") * 56


def _message(lane: LaneId) -> NewMessage:
    now = datetime.now(UTC)
    return NewMessage(
        id=new_message_id(int(now.timestamp() * 1000), os.urandom(10)),
        door="smtp",
        application_id=1,
        application="local",
        envelope=Envelope(SENDER, (RECIPIENT,)),
        content=Content(_HEAD, _BODY),
        accepted=now,
        subject="a backlog",
        header_message_id="<backlog@source.example>",
        peer="127.0.0.1",
        priority=PriorityClass.NORMAL,
        deliveries=(NewDelivery(n=0, recipient=RECIPIENT, lane=lane),),
    )


async def _lane(store: Database) -> LaneId:
    found = await store.write(
        lambda core: core.exec_driver_sql("SELECT id FROM account WHERE name = 'relay'").scalar_one()
    )
    return LaneId(int(found))


async def _fill(database: Path, messages: int) -> None:
    store = await open_store(database, None, lambda: datetime.now(UTC))
    try:
        lane = await _lane(store)
        for start in range(0, messages, _AT_ONCE):
            pending = [store.enqueue(_message(lane)) for _ in range(min(_AT_ONCE, messages - start))]
            for one in pending:
                await one
    finally:
        await store.close()


def _forget_pages(database: Path) -> None:
    """Let the kernel read the file from the disk again."""
    descriptor = os.open(database, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _row(what: str, value: float, unit: str, goal: float) -> dict[str, Any]:
    return {"what": what, "value": round(value, 3), "unit": unit, "goal": goal, "met": value < goal}


def _timed_start(gateway: Postroom, sink: Sink) -> tuple[float, float]:
    """Seconds until the listener greets, and until the first delivery."""
    before = sink.count()
    _forget_pages(gateway.database)
    began = time.monotonic()
    gateway.launch()
    wait_until(lambda: answers(gateway.port), 60, "the listener greets")
    greeted = time.monotonic() - began
    wait_until(lambda: sink.count() > before, 60, "a message leaves")
    return greeted, time.monotonic() - began


def _drained_peak(gateway: Postroom, sink: Sink, messages: int) -> float:
    """Deliver everything; the peak of memory since the start, in MiB."""
    wait_until(lambda: sink.count() >= messages, 600, "everything is delivered")
    wait_until(lambda: gateway.waiting() == 0, 60, "the queue is empty")
    return resident_and_peak_bytes(gateway.pid)[1] / 2**20


def measure(folder: Path, messages: int, *, killed: bool = False) -> tuple[float, float, float]:
    """Seconds to the greeting and to the first delivery, and MiB at the peak, of one start.

    Raises:
        Void: not everything came through.
    """
    made: list[Postroom] = []

    def make(inside: Path, relay_port: int) -> MeasuredGateway:
        made.append(Postroom(inside, relay_port))
        return made[0]

    with running(make, folder) as (_, sink):
        gateway = made[0]
        gateway.stop()
        asyncio.run(_fill(gateway.database, messages))
        greeted, delivered = _timed_start(gateway, sink)
        if killed:
            wait_until(lambda: sink.count() > messages // 100, 60, "some are delivered")
            gateway.kill()
            greeted, delivered = _timed_start(gateway, sink)
        peak = _drained_peak(gateway, sink, messages)
        # After a SIGKILL some may come twice (docs/queue.md); else the count is exact.
        if not killed and sink.count() != messages:
            raise Void(f"{sink.count()} counted at the sink, {messages} were waiting")
    return greeted, delivered, peak


def _rows(folder: Path, messages: int) -> list[dict[str, Any]]:
    few = measure(folder, FEW)[2]
    rows = []
    for killed in (False, True):
        greeted, delivered, peak = measure(folder, messages, killed=killed)
        after = f"{messages:,} waiting, after {'a SIGKILL' if killed else 'an orderly end'}"
        rows += [
            _row(f"{after}: the listener greets", greeted, "s", LISTENER_SECONDS),
            _row(f"{after}: the first delivery", delivered, "s", DELIVERY_SECONDS),
            _row(f"{after}: memory at its peak", peak, "MiB", MEMORY_MIB),
            _row(f"{after}: above that with {FEW:,} waiting", peak - few, "MiB", GROWTH_MIB),
        ]
    return rows


def main(arguments: list[str]) -> int:
    """Measure starts; print and keep the figures. 1 if a run was void, 2 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="make bench PART=start", description=__doc__)
    parser.add_argument("--messages", type=int, default=WAITING, help="of 4 KiB that wait")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on the disk to measure; not tmpfs")
    parser.add_argument("--dry", action="store_true", help="print only; keep no figures")
    options = parser.parse_args(arguments)
    surroundings = results.surroundings(options.folder)
    try:
        rows = _rows(options.folder, options.messages)
    except Void as reason:
        print(f"void: {reason}")
        return 1
    for row in rows:
        print(f"{row['what']:<75}{row['value']:>9.2f} {row['unit']:<4} under {row['goal']:.0f}")
    if not options.dry:
        kept = {"surroundings": surroundings, "rows": rows}
        print(f"written: {results.keep('start', kept)}")
        page.write("start", page.start(kept))
    return 0 if all(row["met"] for row in rows) else 2
