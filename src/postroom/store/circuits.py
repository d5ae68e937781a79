"""Circuits of accounts that may not send, kept for the next start."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete, insert, select

from ..model.circuit import Circuit, Health
from ..model.queue import LaneId
from .readers import Reader
from .schema import circuit as table
from .schema import maybe_moment, micros, moment
from .writer import Transaction


def keep(lane: LaneId, revision: int, circuit: Circuit) -> Callable[[Transaction], None]:
    """Work for the writer: see `QueueStore.keep_circuit`."""

    def work(transaction: Transaction) -> None:
        transaction.core.execute(delete(table).where(table.c.lane == lane))
        if circuit.may_send or circuit.since is None:
            return
        row = {
            "lane": lane,
            "revision": revision,
            "health": circuit.health.value,
            "reason": circuit.reason,
            "advice": circuit.advice,
            "since": micros(circuit.since),
            "until": None if circuit.until is None else micros(circuit.until),
            "transcript": circuit.transcript,
            "failures": circuit.failures,
            "by_hand": int(circuit.by_hand),
        }
        transaction.core.execute(insert(table).values(**row))

    return work


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
            ),
        )
        for row in reader.core.execute(select(table))
    }
