"""How accounts are, as it is kept for the next start."""

from __future__ import annotations

from datetime import timedelta

from postroom.model.account import Account, AccountKind
from postroom.model.circuit import Circuit, Health
from postroom.model.queue import LaneId
from postroom.store.database import Database
from tests.contract.store.conftest import Opener
from tests.contract.store.examples import NOON

ASLEEP = Circuit(
    health=Health.SLEEPING, reason="4.4.1 réfusé", advice="wait", since=NOON, until=NOON + timedelta(minutes=5),
    transcript="S: 421 no\nC: QUIT", failures=3, by_hand=True,
)  # fmt: skip
STOPPED = Circuit(health=Health.NEEDS_ATTENTION, reason="5.7.8 no", since=NOON)


async def test_every_field_of_a_circuit_comes_back(store: Database, open_again: Opener) -> None:
    store.keep_circuit(LaneId(1), 4, STOPPED)
    store.keep_circuit(LaneId(2), 7, STOPPED)
    await store.keep_circuit(LaneId(2), 8, ASLEEP)
    await store.close()
    again = await open_again()
    assert await again.circuits() == {1: (4, STOPPED), 2: (8, ASLEEP)}


async def test_of_an_account_that_may_send_nothing_is_kept(store: Database) -> None:
    store.keep_circuit(LaneId(1), 4, STOPPED)
    store.keep_circuit(LaneId(2), 4, STOPPED)
    store.keep_circuit(LaneId(1), 4, Circuit(health=Health.SLOWED, reason="slow", since=NOON))
    await store.keep_circuit(LaneId(2), 4, Circuit(since=NOON))
    assert await store.circuits() == {}


async def test_it_goes_with_its_account(store: Database) -> None:
    account = await store.save_account(Account(id=0, name="relay", kind=AccountKind.SMTP, host="relay.test"))
    await store.keep_circuit(LaneId(account.id), 1, STOPPED)
    await store.remove_account(account.id)
    assert await store.circuits() == {}
