"""What retention costs: a million ended messages are removed while mail flows, and the file gives its room back."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from postroom.store.sqlite_connection import connect_reader, connect_writer

from . import many, page, results
from .gateways import MeasuredGateway, Postroom
from .relay import running
from .traffic import RECIPIENT, SENDER, Sink, Void, answers, send, wait_until

ENDED = 1_000_000
RATE = 200
COST = 0.10

_CLIENTS = 10
_BODY = b"x" * 2046 + b"\r\n"
_HEAD = b"From: <sender@source.example>\r\nTo: <recipient@sink.example>\r\nSubject: long ago\r\n\r\n"
_LETTER = _HEAD + (b"y" * 70 + b"\r\n") * 56 + b".\r\n"
_ENVELOPE = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode()
_AGE = timedelta(days=60)
_PATIENCE_SECONDS = 1800.0
_LOAD = 20_000


async def _client(port: int, until: float, pause: float, waits: list[float], after: float) -> None:
    """One message every `pause` seconds, the first `after` some; how long each waited for its 250."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        await _reply(reader, b"220")
        writer.write(b"EHLO source.example\r\n")
        await _reply(reader, b"250")
        due = time.monotonic() + after
        while due < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            started = time.monotonic()
            writer.write(_ENVELOPE)
            for code in (b"250", b"250", b"354"):
                await _reply(reader, code)
            writer.write(_LETTER)
            await _reply(reader, b"250")
            waits.append(time.monotonic() - started)
            due += pause


async def _reply(reader: asyncio.StreamReader, code: bytes) -> None:
    while (line := await reader.readline())[3:4] == b"-":
        pass
    if not line.startswith(code):
        raise Void(f"the gateway answered {line!r} where {code!r} was due")


async def offer(port: int, seconds: float, rate: int, waits: list[float], *, evenly: bool = False) -> None:
    """So many messages a second, ten at a time or `evenly`; how long each waited for its 250 comes into `waits`."""
    until, pause = time.monotonic() + seconds, _CLIENTS / rate
    after = pause / _CLIENTS if evenly else 0.0
    await asyncio.gather(*(_client(port, until, pause, waits, n * after) for n in range(_CLIENTS)))


def flow(gateway: Postroom, sink: Sink, seconds: float, rate: int) -> dict[str, float]:
    """Messages a second that were accepted and relayed of so many offered, and how long their 250 took."""
    before, started = sink.count(), time.monotonic()
    waits: list[float] = []
    asyncio.run(offer(gateway.port, seconds, rate, waits))
    elapsed = time.monotonic() - started
    wait_until(lambda: sink.count() - before >= len(waits), 60, "all are relayed")
    ordered = sorted(waits)
    return {
        "offered_per_second": rate,
        "relayed_per_second": round(len(waits) / elapsed, 1),
        "median_ms": round(statistics.median(ordered) * 1000, 1),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 1),
        "seconds": round(elapsed, 1),
    }


@contextmanager
def filled(parent: Path, ended: int) -> Iterator[tuple[Postroom, Sink]]:
    """A gateway, stopped, with so many messages that ended two months ago."""
    made: list[Postroom] = []

    def make(inside: Path, relay_port: int) -> MeasuredGateway:
        made.append(Postroom(inside, relay_port))
        return made[0]

    with running(make, parent) as (_, sink):
        gateway = made[0]
        gateway.stop()
        kind = many.Kind(state="delivered", lane=1, head=_HEAD, body=_BODY, with_history=True)
        with closing(connect_writer(gateway.database, durable=False)) as raw:
            many.fill(raw, ended, kind, until=datetime.now(UTC) - _AGE)
        yield gateway, sink


def left(gateway: Postroom) -> int:
    """Old messages that are still there."""
    old = int((datetime.now(UTC) - _AGE / 2).timestamp() * 1000).to_bytes(6, "big")
    with closing(connect_reader(gateway.database)) as raw:
        (count,) = raw.execute("SELECT count(*) FROM message WHERE id < ?", (old,)).fetchone()
    return int(count)


def spare(gateway: Postroom) -> int:
    """Free pages of the file."""
    with closing(connect_reader(gateway.database)) as raw:
        (count,) = raw.execute("PRAGMA freelist_count").fetchone()
    return int(count)


def measure(parent: Path, ended: int, seconds: float) -> dict[str, Any]:
    """The flow without and with the removal, the highest rate without and with it, and the file before and after.

    Raises:
        Void: something did not come through.
    """
    with filled(parent, ended) as (gateway, sink):
        figures: dict[str, Any] = {"ended": ended, "file_mib_before": _mib(gateway)}
        gateway.launch(POSTROOM_RETENTION="3650d", POSTROOM_CONTENT_RETENTION="3650d")
        wait_until(lambda: answers(gateway.port), 60, "the listener greets")
        send(gateway.port, sink, 500, 20)
        figures["flow_alone"] = flow(gateway, sink, seconds, RATE)
        figures["most_alone"] = _most(gateway, sink)
        gateway.stop()
        gateway.launch()
        began = time.monotonic()
        wait_until(lambda: answers(gateway.port), 60, "the listener greets")
        figures["flow_beside"] = flow(gateway, sink, seconds, RATE)
        figures["removed_meanwhile"] = ended - left(gateway)
        figures["most_beside"] = _most(gateway, sink)
        if not left(gateway):
            raise Void("everything was removed before the rates were measured: give more messages")
        while left(gateway):
            if time.monotonic() - began > _PATIENCE_SECONDS:
                raise Void(f"{left(gateway)} messages are left after {_PATIENCE_SECONDS:.0f} s")
            flow(gateway, sink, 5, RATE)
        figures["removed_in_s"] = round(time.monotonic() - began)
        free = spare(gateway)
        while (now := spare(gateway)) > 2048 and now < free + 2048 and time.monotonic() - began < _PATIENCE_SECONDS:
            free = min(free, now)
            flow(gateway, sink, 5, RATE)
        figures["shrunk_in_s"] = round(time.monotonic() - began)
        gateway.stop()
        figures["file_mib_after"] = _mib(gateway)
    figures["cost"] = round(_cost(figures["flow_alone"], figures["flow_beside"]), 4)
    figures["most_cost"] = round(1 - figures["most_beside"] / figures["most_alone"], 4)
    return figures


def _most(gateway: Postroom, sink: Sink) -> float:
    return round(_LOAD / send(gateway.port, sink, _LOAD, 20).relayed_seconds, 1)


def _cost(alone: dict[str, float], beside: dict[str, float]) -> float:
    return 1 - beside["relayed_per_second"] / alone["relayed_per_second"]


def _mib(gateway: Postroom) -> float:
    return round(os.stat(gateway.database).st_size / 2**20, 1)


def main(arguments: list[str]) -> int:
    """Measure, print, keep. 1 if the run was void, 2 if the goal was missed."""
    parser = argparse.ArgumentParser(prog="make bench PART=retention", description=__doc__)
    parser.add_argument("--messages", type=int, default=ENDED, help="that ended two months ago, of 2 KiB")
    parser.add_argument("--seconds", type=float, default=60, help="of flow, without and with the removal")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on the disk to measure; not tmpfs")
    parser.add_argument("--dry", action="store_true", help="print only; keep no figures")
    options = parser.parse_args(arguments)
    surroundings = results.surroundings(options.folder)
    try:
        figures = measure(options.folder, options.messages, options.seconds)
    except Void as reason:
        print(f"void: {reason}")
        return 1
    kept = {"surroundings": surroundings, "goal": COST, **figures}
    print("\n".join(page.retention(kept)))
    if not options.dry:
        print(f"written: {results.keep('retention', kept)}")
        page.write("retention", page.retention(kept))
    return 0 if figures["cost"] < COST else 2
