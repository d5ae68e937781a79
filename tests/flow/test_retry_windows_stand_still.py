"""While an account is off or needs attention its retry windows stand still, also over restarts; its own rules hold."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

from postroom.gateway import Gateway
from postroom.model.account import Retry
from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.explanation import Times
from postroom.model.outcome import Deferred, Remedy, Scope
from postroom.model.submission import Door, Submission
from postroom.queue import maintenance
from postroom.store import DeliveryFilter, DeliveryRow
from postroom.transports import AccountUnavailable

from .test_sending_is_switched_off import DAY, LATER, Off, states, submit, until

WRONG = Deferred(status="5.7.8", reason="no", scope=Scope.ACCOUNT, remedy=Remedy.STOP)
DOWN = Deferred(status="4.4.1", reason="refused", scope=Scope.ACCOUNT)
HOUR = timedelta(hours=1)


async def opened(off: Off, **account: object) -> Gateway:
    """A gateway that delivers by one account."""
    gateway = await off.start()
    await gateway.accounts.add({"name": "relay", "host": "relay.test"} | account)
    await gateway.applications.add({"name": "erp", "senders": ["*"], "accounts": ["*"]})
    return gateway


async def row(gateway: Gateway) -> DeliveryRow:
    """The one delivery there is."""
    (found,) = await gateway.store.deliveries(DeliveryFilter())
    return found


async def times(gateway: Gateway) -> Times:
    """What is ahead of it."""
    return gateway.deadlines.times(await row(gateway))


async def maintain(gateway: Gateway, off: Off) -> list[str]:
    """What a turn of maintenance leaves."""
    await maintenance.step(gateway.store, off.clock.now(), gateway._maintenance_rules())
    return await states(gateway)


async def test_an_account_that_is_off_stops_the_window_also_while_nothing_runs(tmp_path: Path) -> None:
    off = Off(tmp_path)
    gateway = await opened(off)
    off.transport.answers.append(LATER)
    await submit(gateway)
    await until(gateway, "deferred")
    began = off.clock.now()
    off.clock.advance(timedelta(seconds=30))
    await gateway.accounts.edit("relay", {"enabled": False})
    off.clock.advance(3 * DAY)
    assert await maintain(gateway, off) == ["deferred"]
    ahead = await times(gateway)
    assert (ahead.stands_still, ahead.window_ends, ahead.window_left) == (True, None, 2 * DAY - timedelta(seconds=30))
    await gateway.stop()

    off.clock.advance(4 * DAY)  # nothing runs; then it is switched on by hand, and an hour later the gateway starts
    gateway = await off.start(deliver=False)
    await gateway.accounts.edit("relay", {"enabled": True})
    await gateway.stop()
    off.clock.advance(HOUR)
    gateway = await off.start(deliver=False)
    ends = began + 2 * DAY + 7 * DAY
    assert await times(gateway) == Times(
        next_try=began + timedelta(minutes=1), window_ends=ends, window_left=ends - off.clock.now(),
        gives_up=began + 14 * DAY,
    )  # fmt: skip
    off.clock.advance(ends - off.clock.now() - timedelta(seconds=1))
    assert await maintain(gateway, off) == ["deferred"]
    off.clock.advance(timedelta(seconds=2))
    assert await maintain(gateway, off) == ["expired"]
    await gateway.stop()


async def test_an_account_that_needs_attention_stops_the_window_until_it_is_woken(tmp_path: Path) -> None:
    off = Off(tmp_path)
    gateway = await opened(off)
    off.transport.answers.extend([LATER, AccountUnavailable(WRONG)])
    await submit(gateway)
    await until(gateway, "deferred")
    began = off.clock.now()
    off.clock.advance(timedelta(minutes=1))
    await needs_attention(gateway)
    off.clock.advance(5 * DAY)
    assert await maintain(gateway, off) == ["deferred"]
    await gateway.stop()
    off.clock.advance(5 * DAY)
    gateway = await off.start(deliver=False)
    assert (await times(gateway)).stands_still
    await gateway.scheduler.wake(gateway.accounts.get("relay"))
    assert (await times(gateway)).window_ends == began + 12 * DAY
    await gateway.stop()


async def needs_attention(gateway: Gateway) -> None:
    """Wait until the account does."""
    async with asyncio.timeout(60):
        while gateway.answers.circuit(gateway.accounts.get("relay")).health.value != "needs attention":
            await gateway.store.counts()


async def test_a_sleep_does_not_stop_the_window_and_ends_what_was_never_tried(tmp_path: Path) -> None:
    off = Off(tmp_path)
    gateway = await opened(off)
    off.transport.answers.append(AccountUnavailable(DOWN))
    await submit(gateway)
    async with asyncio.timeout(60):
        while gateway.answers.circuit(gateway.accounts.get("relay")).health.value != "sleeping":
            await gateway.store.counts()
    await gateway.scheduler.put_to_sleep(gateway.accounts.get("relay"), 9 * DAY)
    off.clock.advance(2 * DAY)
    assert await maintain(gateway, off) == ["queued"]
    off.clock.advance(timedelta(seconds=1))
    assert await maintain(gateway, off) == ["expired"]
    await gateway.stop()


async def test_the_accounts_own_rules_and_the_messages_own(tmp_path: Path) -> None:
    off = Off(tmp_path)
    gateway = await opened(off, retry_schedule="10m", retry_window="3h", give_up="5h")
    off.transport.answers.append(LATER)
    await submit(gateway)
    await until(gateway, "deferred")
    now = off.clock.now()
    assert await times(gateway) == Times(
        next_try=now + timedelta(minutes=10), window_ends=now + 3 * HOUR, window_left=3 * HOUR, gives_up=now + 5 * HOUR
    )
    off.transport.answers.append(LATER)
    own = Retry(schedule="20m", window=HOUR, give_up=2 * HOUR)
    (application,) = gateway.applications.snapshot()
    accepted = await gateway.submit(
        Submission(
            door=Door.CLI, application=application, envelope=Envelope("a@x.test", ("c@y.test",)),
            content=Content(b"From: a@x.test\r\n\r\n", b"x\r\n"), received=now, retry=own,
        )
    )  # fmt: skip
    async with asyncio.timeout(60):
        while await states(gateway) != ["deferred", "deferred"]:
            pass
    (why,) = await gateway.answers.why(accepted.id)
    assert why.times == Times(
        next_try=now + timedelta(minutes=20), window_ends=now + HOUR, window_left=HOUR, gives_up=now + 2 * HOUR
    )
    off.transport.answers.extend([LATER] * 20)
    await passed(gateway, off, now + HOUR)
    await maintained(gateway, off, "deferred", "expired")
    await passed(gateway, off, now + 3 * HOUR)
    await maintained(gateway, off, "expired", "expired")
    await gateway.stop()


async def maintained(gateway: Gateway, off: Off, *wanted: str) -> None:
    """Maintenance leaves this, as soon as what is being sent has ended."""
    async with asyncio.timeout(60):
        while await maintain(gateway, off) != list(wanted):
            pass


async def passed(gateway: Gateway, off: Off, end: datetime) -> None:
    """Let the time pass in steps, as tries go on."""
    while off.clock.now() <= end:
        off.clock.advance(timedelta(minutes=5))
        for _ in range(3):
            await gateway.store.counts()
