"""How accounts are, as it is kept for the next start."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from postroom.model.account import Account, AccountKind
from postroom.model.circuit import Circuit, Health
from postroom.model.queue import LaneId
from postroom.policy.standstill import Standstill
from postroom.store.database import Database
from tests.contract.store.conftest import Opener
from tests.contract.store.examples import NOON, Hour

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


RELAY = Account(id=0, name="relay", kind=AccountKind.SMTP, host="relay.test")
HOURS = [NOON + timedelta(hours=hours) for hours in range(10)]


async def test_windows_stand_still_while_an_account_is_off_or_needs_attention(
    store: Database, open_again: Opener, hour: Hour
) -> None:
    hour.at = HOURS[0]
    account = await store.save_account(RELAY)
    assert await store.standstills() == {}
    lane = LaneId(account.id)
    hour.at = HOURS[1]
    account = await store.save_account(replace(account, enabled=False))
    hour.at = HOURS[2]
    await store.keep_circuit(lane, account.revision, STOPPED)  # it stands still already
    hour.at = HOURS[3]
    account = await store.save_account(replace(account, enabled=True))  # an edit ends both
    hour.at = HOURS[4]
    await store.keep_circuit(lane, account.revision, ASLEEP)  # asleep: it goes on
    hour.at = HOURS[5]
    await store.keep_circuit(lane, account.revision, STOPPED)
    hour.at = HOURS[6]
    await store.keep_circuit(lane, account.revision, Circuit(since=NOON))
    hour.at = HOURS[7]
    await store.keep_circuit(lane, account.revision, STOPPED)
    await store.close()
    again = await open_again()
    pauses = ((HOURS[1], HOURS[3]), (HOURS[5], HOURS[6]), (HOURS[7], None))
    assert await again.standstills() == {lane: Standstill(pauses)}
    await again.remove_account(account.id)
    assert await again.standstills() == {}
