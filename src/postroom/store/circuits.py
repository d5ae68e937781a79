"""Circuits of accounts that may not send, kept for the next start, and when their retry windows stood still."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import delete, insert, select

from ..model.circuit import Circuit, Health
from ..model.queue import LaneId
from ..policy.standstill import NEVER, Standstill
from .readers import Reader
from .schema import account, maybe_moment, micros, moment, standstill
from .schema import circuit as table
from .writer import Transaction


def keep(lane: LaneId, revision: int, circuit: Circuit, now: datetime) -> Callable[[Transaction], None]:
    """Work for the writer: see `QueueStore.keep_circuit`."""

    def work(transaction: Transaction) -> None:
        transaction.core.execute(delete(table).where(table.c.lane == lane))
        if not circuit.may_send and circuit.since is not None:
            _insert(transaction, lane, revision, circuit, circuit.since)
        follow(transaction, lane, now)

    return work


def _insert(transaction: Transaction, lane: LaneId, revision: int, circuit: Circuit, since: datetime) -> None:
    row = {
        "lane": lane,
        "revision": revision,
        "health": circuit.health.value,
        "reason": circuit.reason,
        "advice": circuit.advice,
        "since": micros(since),
        "until": None if circuit.until is None else micros(circuit.until),
        "transcript": circuit.transcript,
        "failures": circuit.failures,
        "by_hand": int(circuit.by_hand),
        "failing_since": None if circuit.failing_since is None else micros(circuit.failing_since),
    }
    transaction.core.execute(insert(table).values(**row))


def forget(transaction: Transaction, lane: int) -> None:
    """The account of `lane` goes."""
    for each in (table, standstill):
        transaction.core.execute(delete(each).where(each.c.lane == lane))


def follow(transaction: Transaction, lane: int, now: datetime) -> None:
    """Let the retry windows of `lane` stand still while its account is off or needs attention, in the transaction that
    makes it so."""
    core = transaction.core
    of_account = core.execute(select(account.c.enabled, account.c.revision).where(account.c.id == lane)).first()
    if of_account is None:
        return
    kept = core.execute(select(table.c.health, table.c.revision).where(table.c.lane == lane)).first()
    needs_attention = (
        kept is not None and kept.health == Health.NEEDS_ATTENTION.value and kept.revision == of_account.revision
    )
    row = core.execute(select(standstill.c.pauses).where(standstill.c.lane == lane)).first()
    before = _pauses(row.pauses) if row is not None else NEVER
    after = before.turned(not of_account.enabled or needs_attention, now)
    if after != before:
        core.execute(delete(standstill).where(standstill.c.lane == lane))
        pauses = [[micros(since), None if until is None else micros(until)] for since, until in after.pauses]
        core.execute(insert(standstill).values(lane=lane, pauses=json.dumps(pauses)))


def _pauses(text: str) -> Standstill:
    return Standstill(tuple((moment(since), maybe_moment(until)) for since, until in json.loads(text)))


def read_standstills(reader: Reader) -> dict[LaneId, Standstill]:
    """See `QueueStore.standstills`."""
    return {LaneId(row.lane): _pauses(row.pauses) for row in reader.core.execute(select(standstill))}


def read(reader: Reader) -> dict[LaneId, tuple[int, Circuit]]:
    """See `QueueStore.circuits`."""
    return {
        LaneId(row.lane): (
            row.revision,
            Circuit(
                health=Health(row.health),
                reason=row.reason,
                advice=row.advice,
                since=moment(row.since),
                until=maybe_moment(row.until),
                transcript=row.transcript,
                failures=row.failures,
                by_hand=bool(row.by_hand),
                failing_since=maybe_moment(row.failing_since),
            ),
        )
        for row in reader.core.execute(select(table))
    }
