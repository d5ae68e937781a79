"""A start with a long queue: how soon the listener answers and the first message leaves, and what memory it takes."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import page, results
from .backlog import fill
from .gateways import MeasuredGateway, Postroom
from .process_tree import resident_and_peak_bytes
from .relay import running
from .traffic import Sink, Void, answers, wait_until

WAITING = 100_000
FEW = 1_000
#: Of each kind; and how many are delivered before a SIGKILL.
STARTS = 3
SENT_BEFORE_A_KILL = 1_000

LISTENER_SECONDS = 5.0
DELIVERY_SECONDS = 10.0
MEMORY_MIB = 160.0
GROWTH_MIB = 48.0
CONNECTIONS = 4  # of an account as shipped


def _forget_pages(database: Path) -> None:
    """Let the kernel read the file from the disk again."""
    descriptor = os.open(database, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _row(what: str, runs: list[float], unit: str, goal: float) -> dict[str, Any]:
    """The worst of the runs counts."""
    rounded = [round(value, 3) for value in runs]
    return {"what": what, "value": max(rounded), "runs": rounded, "unit": unit, "goal": goal, "met": max(runs) < goal}


@dataclass(frozen=True, slots=True)
class Starts:
    """Of each start: seconds to the greeting and to the first delivery, and how many were being sent before it. Of the
    last: MiB at its peak, when everything had been delivered. `held`: seconds to the greeting where all is held first.
    """

    greeted: list[float] = field(default_factory=list)
    delivered: list[float] = field(default_factory=list)
    recovered: list[int] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)


class _Backlog:
    """A gateway that ends and starts again with a backlog."""

    def __init__(self, gateway: Postroom, sink: Sink) -> None:
        self._gateway = gateway
        self._sink = sink
        self._filled = 0

    def fill(self, messages: int) -> None:
        """End in order, and let so many wait."""
        self._gateway.stop()
        self._filled += asyncio.run(fill(self._gateway.database, messages))

    def kill(self) -> None:
        """Start, and end by a SIGKILL while it sends."""
        enough = self._sink.count() + SENT_BEFORE_A_KILL
        self._gateway.launch()
        wait_until(lambda: self._sink.count() >= enough, 60, "some are delivered")
        self._gateway.kill()

    def start(self, found: Starts) -> None:
        """Start, and time it."""
        before = self._sink.count()
        began = self._launched()
        found.greeted.append(time.monotonic() - began)
        wait_until(lambda: self._sink.count() > before, 60, "a message leaves")
        found.delivered.append(time.monotonic() - began)
        found.recovered.append(self._gateway.recovered())

    def start_held(self, found: Starts) -> None:
        """Start with everything held before the listener opens, and time it; then release it."""
        began = self._launched(POSTROOM_HOLD_PENDING_AT_START="true")
        found.held.append(time.monotonic() - began)
        self._gateway.command("queue", "release", "--all")

    def _launched(self, **settings: str) -> float:
        _forget_pages(self._gateway.database)
        began = time.monotonic()
        self._gateway.launch(**settings)
        wait_until(lambda: answers(self._gateway.port), 60, "the listener greets")
        return began

    def drain(self, found: Starts) -> int:
        """Deliver everything; how many more than once."""
        wait_until(lambda: self._sink.count() >= self._filled, 600, "everything is delivered")
        wait_until(lambda: self._gateway.waiting() == 0, 60, "the queue is empty")
        found.peak.append(resident_and_peak_bytes(self._gateway.pid)[1] / 2**20)
        return self._sink.count() - self._filled


def measure(folder: Path, messages: int, *, killed: bool = False, starts: int = STARTS) -> Starts:
    """Starts with at least `messages` waiting, each after an orderly end or a SIGKILL; after the last all is delivered.

    Raises:
        Void: not everything came through, or nothing was being sent when it was killed.
    """
    made: list[Postroom] = []

    def make(inside: Path, relay_port: int) -> MeasuredGateway:
        made.append(Postroom(inside, relay_port))
        return made[0]

    found = Starts()
    with running(make, folder) as (_, sink):
        backlog = _Backlog(made[0], sink)
        if not killed:
            backlog.fill(messages)
            backlog.start_held(found)
        for _ in range(starts):
            backlog.fill(messages + (2 * SENT_BEFORE_A_KILL if killed else 0))
            if killed:
                backlog.kill()
            backlog.start(found)
        twice = backlog.drain(found)
    if killed and not all(found.recovered):
        raise Void(f"nothing was being sent when it was killed: {found.recovered}")
    # docs/queue.md, How many: at most two of each connection at each kill.
    if twice > (2 * CONNECTIONS * starts if killed else 0):
        raise Void(f"{twice} came more than once")
    return found


def _rows(folder: Path, messages: int) -> list[dict[str, Any]]:
    few = measure(folder, FEW, starts=1).peak[0]
    rows = []
    for killed in (False, True):
        found = measure(folder, messages, killed=killed)
        sent = " to ".join(str(number) for number in sorted({min(found.recovered), max(found.recovered)}))
        after = f"{messages:,} waiting, after " + (f"a SIGKILL with {sent} being sent" if killed else "an orderly end")
        rows += [
            _row(f"{after}: the listener greets", found.greeted, "s", LISTENER_SECONDS),
            _row(f"{after}: the first delivery", found.delivered, "s", DELIVERY_SECONDS),
            _row(f"{after}: memory at its peak", found.peak, "MiB", MEMORY_MIB),
            _row(f"{after}: above that with {FEW:,} waiting", [found.peak[0] - few], "MiB", GROWTH_MIB),
        ]
        if found.held:
            what = f"{messages:,} waiting, all held before it takes mail (`hold_pending_at_start`): the listener greets"
            rows.append(_row(what, found.held, "s", LISTENER_SECONDS))
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
        runs = ", ".join(f"{value:.2f}" for value in row["runs"])
        print(f"{row['what']:<100}{runs:>20} {row['unit']:<4} under {row['goal']:.0f}")
    if not options.dry:
        kept = {"surroundings": surroundings, "rows": rows}
        print(f"written: {results.keep('start', kept)}")
        page.write("start", page.start(kept))
    return 0 if all(row["met"] for row in rows) else 2
