"""What is wrong with the gateway is told by mail, once, through another account than the one that it is about."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest

from postroom.model.account import Fallback
from postroom.model.application import RepeatGuard
from postroom.model.outcome import Bounced, Deferred, Remedy, Scope
from postroom.model.reply import Reply
from postroom.queue.admission import Admission
from postroom.queue.alerts import AlertRules, Alerts, Expiry, House
from postroom.store import EventFilter
from postroom.transports import AccountUnavailable, Transaction
from tests.flow.conftest import Room, digest, relay

RULES = AlertRules(
    to="admin@x.test", sender="", account="", hostname="mx.test", oldest=timedelta(hours=1), bounce_percent=20,
    free_bytes=1024**3,
)  # fmt: skip
WRONG = Deferred(status="5.7.8", reason="wrong password", advice="check it", scope=Scope.ACCOUNT, remedy=Remedy.STOP)
NO_SUCH = Bounced(status="5.1.1", reason="no", reply=Reply(550, ("no",), "5.1.1", "RCPT"))


@dataclasses.dataclass
class Watch:
    """Alerts of a room with two accounts, looked for when the test says so."""

    room: Room
    rules: AlertRules = RULES
    expiries: list[Expiry] = dataclasses.field(default_factory=list)
    free_bytes: int = 10 * 1024**3
    kept: str = ""

    def __post_init__(self) -> None:
        if len(self.room.accounts) == 1:
            self.room.accounts.append(relay(2))
        self.room.scheduler.follow(self.room.accounts)
        self.start()

    def start(self) -> None:
        """As at a start of the gateway."""
        scheduler, store = self.room.scheduler, self.room.store
        house = House(
            lambda: self.room.accounts, scheduler.circuit, scheduler.ended, self._expiries, lambda: self.free_bytes,
            self.room.admission.watched,
        )  # fmt: skip
        self.alerts = Alerts(
            store, self.room.clock, self.room.intake, lambda: self.rules, house, os.urandom, self._keep, self.kept
        )

    async def _expiries(self) -> Sequence[Expiry]:
        return self.expiries

    def _keep(self, text: str) -> Any:
        self.kept = text
        return self.room.store.save_setting("open_alerts", text)

    async def look(self, *, after: timedelta = timedelta(0)) -> list[str]:
        """The subjects of what a turn tells, once it was sent."""
        self.room.clock.advance(after)
        before = len(await self._told())
        await self.alerts.look()
        told = await self._told()
        await self.room.store.until(lambda: self._are_sent(len(told)))
        return [detail.partition(" (told")[0] for detail in told[before:]]

    async def _told(self) -> list[str]:
        page = await self.room.store.events(EventFilter(kinds=("alert",), limit=1000))
        return [f"{event.kind}: {event.detail}" for event in page.events]

    async def _are_sent(self, count: int) -> bool:
        return len(self.sent) == count

    @property
    def sent(self) -> list[tuple[str, Transaction]]:
        """The alerts that left, by account."""
        return [
            (name, one)
            for name, transport in self.room.transports.items()
            for one in transport.sent
            if b"auto-generated" in one.head
        ]

    def last(self, account: str) -> EmailMessage:
        """The last alert that left by an account."""
        sent = [one for name, one in self.sent if name == account][-1]
        assert (sent.envelope.reverse_path, sent.envelope.recipients) == ("", ("admin@x.test",))
        assert isinstance(sent.body, bytes)
        read = message_from_bytes(sent.head + sent.body, policy=policy.default)
        assert isinstance(read, EmailMessage)
        return read


async def test_an_account_that_needs_attention_is_told_of_once_through_another_and_then_the_all_clear(
    room: Room,
) -> None:
    room.accounts[0] = dataclasses.replace(room.accounts[0], fallback=Fallback.NONE)
    watch = Watch(room)
    assert await watch.look() == []
    room.transports["relay1"].answers.append(AccountUnavailable(WRONG))
    message = await room.submit()
    await room.until_event("account.needs_attention")
    what = "account relay1 needs attention and sends nothing: 5.7.8 wrong password"
    assert await watch.look() == [f"alert.raised: {what}"]
    told = watch.last("relay2")
    assert (told["Subject"], told["To"], told["From"]) == (
        f"Alert: {what}", "admin@x.test", "Mail gateway <MAILER-DAEMON@mx.test>",
    )  # fmt: skip
    assert "check it; then postroom accounts edit relay1, or accounts wake relay1" in told.get_content()
    assert await watch.look(after=timedelta(days=1)) == []
    watch.start()  # nor does a start tell it again
    assert await watch.look() == []
    await room.scheduler.wake(room.accounts[0])
    await room.until(message, "delivered")
    assert await watch.look() == [f"alert.cleared: {what}"]
    assert [name for name, _ in watch.sent] in (["relay2", "relay2"], ["relay1", "relay2"], ["relay2", "relay1"])
    assert await watch.look() == []


async def test_without_an_address_nobody_is_told_and_later_it_is_told_at_once(room: Room) -> None:
    watch = Watch(room, rules=dataclasses.replace(RULES, to=""))
    room.transports["relay1"].answers.append(AccountUnavailable(WRONG))
    await room.submit()
    await room.until_event("account.needs_attention")
    assert await watch.look() == []
    watch.rules = RULES
    assert len(await watch.look()) == 1


async def test_mail_that_waits_for_long_is_told_of_by_account(room: Room) -> None:
    room.accounts[0] = dataclasses.replace(room.accounts[0], fallback=Fallback.NONE)
    watch = Watch(room)
    await room.scheduler.put_to_sleep(room.accounts[0], timedelta(hours=3))
    await room.submit()
    assert await watch.look(after=timedelta(minutes=60)) == []
    assert await watch.look(after=timedelta(minutes=1)) == [
        "alert.raised: mail has waited on account relay1 since 2026-01-01T00:00+00:00"
    ]
    room.clock.advance(timedelta(hours=2))
    await room.store.until(lambda: _nothing_waits(room))
    assert len(await watch.look()) == 1


async def _nothing_waits(room: Room) -> bool:
    return all(state.is_final for (_, state), count in (await room.store.counts()).items() if count)


async def test_alerts_that_wait_are_no_cause(room: Room) -> None:
    watch = Watch(room, free_bytes=1)
    for account in room.accounts:
        await room.scheduler.put_to_sleep(account, timedelta(days=9))
    await watch.alerts.look()
    room.clock.advance(timedelta(days=2))
    await watch.alerts.look()
    assert [told.partition(" (")[0] for told in await watch._told()] == [
        "alert.raised: the disk of the data folder has less than 1GiB free"
    ]


async def test_an_account_whose_mail_is_refused_is_told_of(room: Room) -> None:
    watch = Watch(room)
    assert await watch.look() == []
    transport = room.transports["relay1"]
    transport.answers.extend([NO_SUCH] * 4)
    for number in range(19):
        await room.until(await room.submit(), "bounced" if number < 4 else "delivered")
    assert await watch.look() == []  # too few to say anything
    await room.until(await room.submit(), "delivered")
    what = "20 % of what account relay1 sent within 1h was refused for good"
    assert await watch.look() == [f"alert.raised: {what}"]
    assert await watch.look(after=timedelta(minutes=59)) == []
    assert await watch.look(after=timedelta(minutes=61)) == [f"alert.cleared: {what}"]


@pytest.mark.parametrize(("days", "told"), [(31, 0), (29, 1), (6, 1), (0, 1)])
async def test_what_expires_is_told_of(room: Room, days: int, told: int) -> None:
    watch = Watch(room)
    at = room.clock.now() + timedelta(days=days)
    watch.expiries = [Expiry("the certificate", at, "renew it")]
    found = await watch.look()
    assert len(found) == told
    assert all(at.date().isoformat() in one for one in found)


async def test_an_expiry_is_told_of_again_as_it_comes_nearer_and_not_when_it_was_renewed(room: Room) -> None:
    watch = Watch(room)
    watch.expiries = [Expiry("the certificate", room.clock.now() + timedelta(days=30), "renew it")]
    assert len(await watch.look()) == 1
    assert len(await watch.look(after=timedelta(days=1))) == 0
    again = await watch.look(after=timedelta(days=22))
    assert [one.partition(":")[0] for one in again] == ["alert.raised"]
    watch.expiries = [Expiry("the certificate", room.clock.now() + timedelta(days=90), "renew it")]
    assert [one.partition(":")[0] for one in await watch.look()] == ["alert.cleared"]


async def test_the_account_that_is_set_is_used_while_it_can_send(room: Room) -> None:
    watch = Watch(room, rules=dataclasses.replace(RULES, account="RELAY2"), free_bytes=1)
    assert len(await watch.look()) == 1
    assert watch.last("relay2")["Subject"] == "Alert: the disk of the data folder has less than 1GiB free"
    await room.scheduler.put_to_sleep(room.accounts[1], timedelta(days=1))
    watch.free_bytes = 10 * 1024**3
    assert len(await watch.look()) == 1
    assert watch.last("relay1")["Subject"] == "All clear: the disk of the data folder has less than 1GiB free"


async def test_an_alert_about_an_account_never_goes_through_it(room: Room) -> None:
    watch = Watch(room, rules=dataclasses.replace(RULES, account="relay1"))
    await room.scheduler.put_to_sleep(room.accounts[1], timedelta(hours=1))
    room.transports["relay1"].answers.append(AccountUnavailable(WRONG))
    await room.submit()
    await room.until_event("account.needs_attention")
    await watch.alerts.look()
    assert watch.sent == []  # it waits for the other one, which sleeps
    room.clock.advance(timedelta(hours=1))
    await room.store.until(lambda: watch._are_sent(1))
    assert [name for name, _ in watch.sent] == ["relay2"]


async def test_where_there_is_no_other_account_it_is_an_event_and_the_all_clear_is_mail(room: Room) -> None:
    watch = Watch(room)
    room.accounts.pop()
    room.scheduler.follow(room.accounts)
    room.transports["relay1"].answers.append(AccountUnavailable(WRONG))
    await room.submit()
    await room.until_event("account.needs_attention")
    for _ in range(2):
        await watch.alerts.look()
    (told,) = await watch._told()
    assert told.endswith("(told nobody: there is no other account)")
    assert watch.sent == []
    await room.scheduler.wake(room.accounts[0])
    await watch.alerts.look()
    await room.store.until(lambda: watch._are_sent(1))
    assert watch.last("relay1")["Subject"].startswith("All clear: account relay1 needs attention")


async def test_what_a_repeat_guard_holds_is_told_of_until_the_program_stops(room: Room) -> None:
    guard = RepeatGuard(count=3, within=timedelta(minutes=10))
    room.application = dataclasses.replace(room.application, repeat_guard=guard)
    watch = Watch(room)
    for state in ("delivered", "delivered"):
        await room.until(await room.submit(), state)
    assert await watch.look() == []
    await room.until(await room.submit(), "held")
    what = "application erp sends the same again and again, and its repeat guard holds it (3 or more within 10m)"
    assert await watch.look() == [f"alert.raised: {what}"]
    assert "postroom queue list --application erp --state held" in watch.last("relay1").get_content()
    await room.until(await room.submit(), "held")
    assert await watch.look(after=timedelta(minutes=9)) == []
    room.admission = Admission(room.scheduler.limiter, lambda: room.applications, lambda: room.accounts, digest)
    room.admission.follow()  # as at a start: what was held before counts still
    watch.start()
    assert await watch.look() == []
    assert await watch.look(after=timedelta(minutes=2)) == [f"alert.cleared: {what}"]
    assert await watch.look() == []
