"""How many messages a second the store alone can take, claim and complete, and what durability costs.

    python -m bench.store_rate [--messages N] [--in-flight N] [--busy MICROSECONDS] [--database postgresql://...]

Each of `--in-flight` workers enqueues a message of 4 KiB, claims it and completes it, waiting for every commit.
`--busy` makes the loop's thread work so long for each message, as the protocols would.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.ids import new_message_id
from postroom.model.queue import (
    AttemptRecord,
    DeliveryResult,
    DeliveryState,
    FencingToken,
    LaneId,
    NewDelivery,
    NewMessage,
    PriorityClass,
)
from postroom.store import Claim
from postroom.store.database import Database, open_store

HEAD = b"From: <a@example.org>\r\nTo: <b@example.org>\r\nSubject: a test\r\n\r\n"
BODY = (b"x" * 70 + b"\r\n") * 56
LANE = LaneId(1)


def message(now: datetime) -> NewMessage:
    """A message of 4 KiB to somebody."""
    recipient = f"user{random.randrange(3_000_000)}@domain{random.randrange(20_000)}.example"
    return NewMessage(
        id=new_message_id(int(now.timestamp() * 1000), os.urandom(10)),
        door="smtp",
        application_id=1,
        application="local",
        envelope=Envelope("a@example.org", (recipient,)),
        content=Content(HEAD, BODY),
        accepted=now,
        subject="a test",
        header_message_id="<1@example.org>",
        peer="127.0.0.1",
        priority=PriorityClass.NORMAL,
        deliveries=(NewDelivery(n=0, recipient=recipient, lane=LANE),),
    )


def _work(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def _cycle(store: Database, token: FencingToken, busy: float) -> None:
    now = datetime.now(UTC)
    one = message(now)
    _work(busy / 3)
    await store.enqueue(one)
    _work(busy / 3)
    claimed = await store.claim(Claim(message_id=one.id, recipients=(0,), lane=LANE, token=token))
    if claimed != (0,):
        raise SystemExit("a message could not be claimed")
    _work(busy / 3)
    result = DeliveryResult(
        n=0,
        state=DeliveryState.DELIVERED,
        outcome="delivered",
        status="2.0.0",
        reply="250 2.0.0 Ok: queued as 4F1B2C",
        command="DATA",
    )
    await store.complete(
        AttemptRecord(
            message_id=one.id,
            lane=LANE,
            token=token,
            account="relay",
            started=now,
            ended=now,
            remote_host="127.0.0.1",
            results=(result,),
        )
    )


async def measure(database: str | Path, messages: int, in_flight: int, busy: float, *, durable: bool) -> None:
    """Run `messages` cycles and print the figures."""
    store = await open_store(database, None, lambda: datetime.now(UTC), durable=durable)
    token, _ = await store.recover(datetime.now(UTC))
    left = messages

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await _cycle(store, token, busy)

    commits = store.commits
    start, cpu, loop_cpu = time.perf_counter(), _cpu(resource.RUSAGE_SELF), _cpu(resource.RUSAGE_THREAD)
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    elapsed = time.perf_counter() - start
    cpu, loop_cpu = _cpu(resource.RUSAGE_SELF) - cpu, _cpu(resource.RUSAGE_THREAD) - loop_cpu
    print(
        f"durable={durable!s:5} {messages / elapsed:7.0f} a second, {(store.commits - commits) / messages:.3f} commits,"
        f" loop {loop_cpu / messages * 1e6:.0f} us, others {(cpu - loop_cpu) / messages * 1e6:.0f} us of CPU a message",
        flush=True,
    )
    await store.close()


def _cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Parse arguments; measure with and without fsync, interleaved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--in-flight", type=int, default=20)
    parser.add_argument("--busy", type=float, default=0.0, help="microseconds of work on the loop for each message")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--database", default="", help="URL of a PostgreSQL database; else a new SQLite file")
    parser.add_argument("--switch-interval", type=float, help="seconds, see sys.setswitchinterval")
    arguments = parser.parse_args()
    if arguments.switch_interval:
        sys.setswitchinterval(arguments.switch_interval)
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        new_event_loop = importlib.import_module("uvloop").new_event_loop
    for _ in range(arguments.rounds):
        for durable in (True, False):
            with tempfile.TemporaryDirectory(dir=".") as folder:
                with asyncio.Runner(loop_factory=new_event_loop) as runner:
                    runner.run(
                        measure(
                            arguments.database or Path(folder) / "postroom.db",
                            arguments.messages,
                            arguments.in_flight,
                            arguments.busy / 1e6,
                            durable=durable,
                        )
                    )


if __name__ == "__main__":
    main()
