"""While sending is off nothing is claimed and retry windows stand still, also over restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.outcome import Deferred, Outcome, Scope
from postroom.model.reply import Reply
from postroom.model.submission import Door, Submission
from postroom.queue import maintenance
from postroom.transports import Transaction

from .conftest import OK, FakeClock, Room, ScriptedTransport

DAY = timedelta(days=1)
LATER = Deferred(reply=Reply(451, ("later",), "4.2.0", "RCPT"), status="4.2.0", reason="later", scope=Scope.MESSAGE)


async def test_what_is_claimed_goes_on_and_nothing_more_is_claimed(room: Room) -> None:
    may_answer, transport = asyncio.Event(), room.transports["relay1"]

    async def answer(transaction: Transaction) -> Sequence[Outcome]:
        await may_answer.wait()
        return [OK]

    transport.capacity = 1
    transport.answers.append(answer)
    claimed, waiting = await room.submit(), await room.submit()
    await room.until(claimed, "sending")
    room.scheduler.pause(True)
    may_answer.set()
    await room.until(claimed, "delivered")
    later = await room.submit()
    assert await room.states(waiting) + await room.states(later) == ["queued", "queued"]
    assert len(transport.sent) == 1
    room.scheduler.pause(False)
    await room.until(waiting, "delivered")
    await room.until(later, "delivered")


class Off:
    """A gateway on a clock of the test, whose one transport puts everything off."""

    def __init__(self, data: Path) -> None:
        self.clock = FakeClock()
        self._settings = Settings.load(data, hostname="gate.test", smtp={"listeners": []})
        self.transport = ScriptedTransport()

    async def start(self, *, deliver: bool = True) -> Gateway:
        """It delivers from now on, or only takes mail."""
        gateway = await Gateway.open(self._settings, clock=self.clock, random_unit=lambda: 0.5)
        gateway.scheduler._make_transport = lambda account: self.transport
        await gateway.start(deliver)
        return gateway

    async def states_later(self, by: timedelta) -> list[str]:
        """What maintenance makes of the deliveries after so long, while nothing is sent."""
        self.clock.advance(by)
        gateway = await self.start(deliver=False)
        await maintenance.step(gateway.store, self.clock.now(), gateway._maintenance_rules())
        found = await states(gateway)
        await gateway.stop()
        return found


async def submit(gateway: Gateway) -> None:
    """A message of the one application there is."""
    (application,) = gateway.applications.snapshot()
    await gateway.submit(
        Submission(
            door=Door.CLI, application=application, envelope=Envelope("a@x.test", ("b@y.test",)),
            content=Content(b"From: a@x.test\r\n\r\n", b"x\r\n"), received=gateway.clock.now(),
        )
    )  # fmt: skip


async def states(gateway: Gateway) -> list[str]:
    """Of all deliveries."""
    counts = await gateway.store.counts()
    return sorted(state.value for (_, state), n in counts.items() for _ in range(n))


async def until(gateway: Gateway, wanted: str) -> None:
    """Until the one delivery is so."""
    async with asyncio.timeout(60):
        while await states(gateway) != [wanted]:
            pass


async def test_the_retry_window_stands_still_while_sending_is_off(tmp_path: Path) -> None:
    off = Off(tmp_path)
    gateway = await off.start()
    await gateway.accounts.add({"name": "relay", "host": "relay.test"})
    await gateway.applications.add({"name": "erp", "senders": ["*"], "accounts": ["*"]})
    off.transport.answers.extend([LATER] * 2)
    await submit(gateway)
    await until(gateway, "deferred")

    await gateway.configuration.change({"sending_enabled": "off"})
    off.clock.advance(2 * DAY)
    await gateway.stop()
    assert await off.states_later(2 * DAY) == ["deferred"]  # nor does the time between two starts count

    gateway = await off.start()
    assert len(off.transport.sent) == 1
    await gateway.configuration.change({"sending_enabled": True})
    async with asyncio.timeout(60):
        while len(off.transport.sent) < 2:
            await states(gateway)
    await until(gateway, "deferred")  # two days are left
    await gateway.stop()

    assert await off.states_later(DAY) == ["deferred"]
    assert await off.states_later(DAY + timedelta(minutes=1)) == ["expired"]


async def test_giving_up_never_stands_still(tmp_path: Path) -> None:
    off = Off(tmp_path)
    gateway = await off.start()
    await gateway.configuration.change({"sending_enabled": "off"})
    await gateway.accounts.add({"name": "relay", "host": "relay.test"})
    await gateway.applications.add({"name": "erp", "senders": ["*"], "accounts": ["*"]})
    await submit(gateway)
    off.clock.advance(15 * DAY)
    await maintenance.step(gateway.store, off.clock.now(), gateway._maintenance_rules())
    assert await states(gateway) == ["expired"]
    await gateway.stop()
