"""What senders are told: one report for each message, as the programs of others read it, and never about a report."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from email import message_from_bytes
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from flufl.bounce import all_failures

from postroom.model.envelope import DsnRequest, Envelope
from postroom.model.outcome import Bounced, Deferred, Delivered, Outcome
from postroom.model.queue import MessageId
from postroom.model.reply import Reply
from postroom.model.submission import Door
from postroom.queue import maintenance
from postroom.queue.bounce import GATHER, NotificationRules, Reporter, ReportTo
from postroom.transports import Transaction
from tests.flow.conftest import OK, Room

NO_SUCH = Bounced(
    status="5.1.1",
    reason="550 5.1.1 no such user",
    advice="check the address",
    reply=Reply(550, ("no such user",), "5.1.1", "RCPT"),
    remote_host="relay.test [192.0.2.1]",
)
LATER = Deferred(
    status="4.2.2", reason="452 4.2.2 mailbox full", reply=Reply(452, ("mailbox full",), "4.2.2", "RCPT"),
    remote_host="relay.test [192.0.2.1]",
)  # fmt: skip
RULES = NotificationRules(
    to=ReportTo.SENDER, postmaster="pm@x.test", sender="", account="", hostname="mx.test", retry_window=timedelta(2)
)


@dataclass
class Reporting:
    """A room whose reporter runs."""

    room: Room
    reporter: Reporter

    @property
    def reports(self) -> list[Transaction]:
        """The reports that left."""
        return [sent for sent in self.room.transports["relay1"].sent if b"multipart/report" in sent.head]

    async def report_on(self, message_id: MessageId) -> Message:
        """The one report that the message led to, once it was sent."""
        detail = await self.room.until_event("reported")
        await self.room.store.until(self._is_sent)
        (sent,) = self.reports
        assert isinstance(sent.body, bytes)
        view = await self.room.store.message(message_id)
        assert detail in [event.detail for event in view.events]
        return message_from_bytes(sent.head + sent.body)

    async def _is_sent(self) -> bool:
        return bool(self.reports)

    async def quiet(self) -> None:
        """Nothing is noted any more, and what was reported was sent."""

        async def is_quiet() -> bool:
            await self.reporter.step()
            return not await self.room.store.noticed(self.room.clock.now() + GATHER)

        await self.room.store.until(is_quiet)


Report = Callable[..., contextlib.AbstractAsyncContextManager[Reporting]]


@pytest.fixture
def reporting(room: Room) -> Report:
    """`reporting(to=...)` runs a reporter by these rules."""

    @asynccontextmanager
    async def run(**rules: Any) -> AsyncIterator[Reporting]:
        reporter = Reporter(
            room.store, room.clock, room.intake, replace(RULES, **rules), lambda name: room.application, os.urandom
        )
        room.noted.append(reporter.notice)
        task = asyncio.create_task(reporter.run())
        yield Reporting(room, reporter)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    return run


def fields_of(report: Message) -> list[Message]:
    """The blocks of the delivery status: of the message, then of each recipient."""
    (status,) = [part for part in report.walk() if part.get_content_type() == "message/delivery-status"]
    return [block for block in status.get_payload() if isinstance(block, Message)]


def asking(room: Room, dsn: DsnRequest, *recipients: str) -> Envelope:
    return Envelope("a@x.test", recipients, dsn=dsn)


async def test_a_refused_recipient_is_reported_to_the_sender(room: Room, reporting: Report) -> None:
    async with reporting() as reports:
        room.transports["relay1"].answers.append(NO_SUCH)
        message_id = await room.submit("gone@y.test")
        report = await reports.report_on(message_id)
    (sent,) = reports.reports
    assert sent.envelope == Envelope("", ("a@x.test",))
    assert (report["To"], report["Auto-Submitted"]) == ("a@x.test", "auto-replied")
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    about, recipient = fields_of(report)
    assert about["Reporting-MTA"] == "dns; mx.test"
    assert parsedate_to_datetime(about["Arrival-Date"]) == room.clock.now()
    assert recipient["Final-Recipient"] == "rfc822; gone@y.test"
    assert (recipient["Action"], recipient["Status"]) == ("failed", "5.1.1")
    assert recipient["Remote-MTA"] == "dns; relay.test"
    assert recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    words = report.get_payload(0).get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert "<gone@y.test>" in words
    assert "check the address" in words
    returned = report.get_payload(2)
    assert isinstance(returned, Message)
    assert returned.get_content_type() == "text/rfc822-headers"
    assert all_failures(report) == (frozenset(), frozenset({b"gone@y.test"}))


async def test_one_report_tells_of_all_recipients(room: Room, reporting: Report) -> None:
    async def mixed(transaction: Transaction) -> list[Outcome]:
        return [NO_SUCH, OK, NO_SUCH]

    async with reporting() as reports:
        room.transports["relay1"].answers.append(mixed)
        message_id = await room.submit("b@y.test", "c@y.test", "d@y.test")
        report = await reports.report_on(message_id)
        await reports.quiet()
        assert len(reports.reports) == 1
    assert [block["Final-Recipient"] for block in fields_of(report)[1:]] == ["rfc822; b@y.test", "rfc822; d@y.test"]


async def test_what_ends_at_different_times_is_gathered_for_a_while(room: Room, reporting: Report) -> None:
    async def mixed(transaction: Transaction) -> list[Outcome]:
        return [NO_SUCH, LATER]

    async with reporting() as reports:
        room.transports["relay1"].answers.append(mixed)
        message_id = await room.submit("b@y.test", "c@y.test")
        await room.until(message_id, "bounced", "deferred")
        await reports.reporter.step()
        assert reports.reports == []
        room.clock.advance(GATHER)
        report = await reports.report_on(message_id)
    assert [block["Action"] for block in fields_of(report)[1:]] == ["failed"]


async def test_nothing_is_reported_about_a_report(room: Room, reporting: Report) -> None:
    async with reporting() as reports:
        room.transports["relay1"].answers.extend([NO_SUCH, NO_SUCH])
        message_id = await room.submit("gone@y.test")
        await reports.report_on(message_id)
        await reports.quiet()
        assert len(reports.reports) == 1


@pytest.mark.parametrize(
    ("to", "told"),
    [
        (ReportTo.SENDER, ("a@x.test",)),
        (ReportTo.POSTMASTER, ("pm@x.test",)),
        (ReportTo.BOTH, ("a@x.test", "pm@x.test")),
    ],
)
async def test_who_is_told(room: Room, reporting: Report, to: ReportTo, told: tuple[str, ...]) -> None:
    async with reporting(to=to) as reports:
        room.transports["relay1"].answers.append(NO_SUCH)
        await reports.report_on(await room.submit("gone@y.test"))
    assert [sent.envelope.recipients for sent in reports.reports] == [told]


@pytest.mark.parametrize("silent", ["nobody", "null reverse-path", "door", "NEVER"])
async def test_who_is_not_told(room: Room, reporting: Report, silent: str) -> None:
    async with reporting(to=ReportTo.NONE if silent == "nobody" else ReportTo.SENDER) as reports:
        room.transports["relay1"].answers.append(NO_SUCH)
        submission = room.submission("gone@y.test")
        if silent == "null reverse-path":
            submission = replace(submission, envelope=Envelope("", ("gone@y.test",)))
        elif silent == "door":
            submission = replace(submission, door=Door.REST)
        elif silent == "NEVER":
            dsn = DsnRequest(notify=("NEVER",), orcpt=("",))
            submission = replace(submission, envelope=asking(room, dsn, "gone@y.test"))
        accepted = await room.intake.submit(submission)
        await room.until(accepted.id, "bounced")
        await reports.quiet()
        room.clock.advance(GATHER)
        await reports.quiet()
        assert reports.reports == []


async def test_a_delay_is_told_once_and_only_to_who_wants_it(room: Room, reporting: Report) -> None:
    rules = maintenance.MaintenanceRules(timedelta(2), timedelta(14), timedelta(30), timedelta(hours=4))
    async with reporting() as reports:
        room.transports["relay1"].answers.append(LATER)
        dsn = DsnRequest(notify=("", "FAILURE"), orcpt=("", ""))
        submission = replace(room.submission(), envelope=asking(room, dsn, "b@y.test", "c@y.test"))
        message_id = (await room.intake.submit(submission)).id
        await room.until(message_id, "deferred", "deferred")
        room.clock.time += timedelta(hours=4, minutes=1)
        await maintenance.step(room.store, room.clock, rules)
        room.clock.time += GATHER
        reports.reporter.notice()
        report = await reports.report_on(message_id)
        for _ in range(3):
            room.clock.time += timedelta(minutes=1)
            await maintenance.step(room.store, room.clock, rules)
        await reports.quiet()
        assert len(reports.reports) == 1
    (recipient,) = fields_of(report)[1:]
    assert recipient["Final-Recipient"] == "rfc822; b@y.test"
    assert (recipient["Action"], recipient["Status"]) == ("delayed", "4.2.2")
    accepted = (await room.store.message(message_id)).accepted
    assert abs(parsedate_to_datetime(recipient["Will-Retry-Until"]) - accepted - timedelta(2)) < timedelta(seconds=1)
    assert not all_failures(report)[1]


async def test_what_expires_is_reported(room: Room, reporting: Report) -> None:
    rules = maintenance.MaintenanceRules(timedelta(2), timedelta(14), timedelta(30))
    async with reporting() as reports:
        room.transports["relay1"].answers.append(LATER)
        message_id = await room.submit("full@y.test")
        await room.until(message_id, "deferred")
        room.clock.time += timedelta(days=2, minutes=1)
        await maintenance.step(room.store, room.clock, rules)
        reports.reporter.notice()
        report = await reports.report_on(message_id)
    (recipient,) = fields_of(report)[1:]
    assert (recipient["Action"], recipient["Status"]) == ("failed", "5.2.2")
    assert all_failures(report)[1] == frozenset({b"full@y.test"})


@pytest.mark.parametrize("relay_reports", [False, True])
async def test_success_is_told_where_it_is_asked_and_the_relay_does_not(
    room: Room, reporting: Report, relay_reports: bool
) -> None:
    async with reporting() as reports:
        taken = Delivered(reply=OK.reply, remote_host="mx.y.test", reports=relay_reports)
        room.transports["relay1"].answers.append(taken)
        dsn = DsnRequest("FULL", "QQ+2B1", ("SUCCESS,FAILURE",), ("rfc822;old+40z.test",))
        submission = replace(room.submission(), envelope=asking(room, dsn, "b@y.test"))
        message_id = (await room.intake.submit(submission)).id
        await room.until(message_id, "delivered")
        if relay_reports:
            await reports.quiet()
            assert reports.reports == []
            return
        report = await reports.report_on(message_id)
    about, recipient = fields_of(report)
    assert about["Original-Envelope-Id"] == "QQ+1"
    assert recipient["Original-Recipient"] == "rfc822; old@z.test"
    assert (recipient["Action"], recipient["Status"]) == ("relayed", "2.0.0")
    assert report.get_payload(2).get_content_type() == "text/rfc822-headers"  # type: ignore[union-attr]


@pytest.mark.parametrize(("ret", "kind"), [("FULL", "message/rfc822"), ("HDRS", "text/rfc822-headers")])
async def test_the_sender_says_how_much_comes_back(room: Room, reporting: Report, ret: str, kind: str) -> None:
    async with reporting() as reports:
        room.transports["relay1"].answers.append(NO_SUCH)
        dsn = DsnRequest(ret=ret, notify=("",), orcpt=("",))
        submission = replace(room.submission(body=b"caf\xc3\xa9\r\n"), envelope=asking(room, dsn, "b@y.test"))
        report = await reports.report_on((await room.intake.submit(submission)).id)
    (sent,) = reports.reports
    returned = report.get_payload(2)
    assert isinstance(returned, Message)
    assert returned.get_content_type() == kind
    assert isinstance(sent.body, bytes)
    assert (b"caf\xc3\xa9" in sent.body) == (ret == "FULL") == sent.envelope.eight_bit


async def test_a_report_that_nothing_can_carry_is_noted_and_given_up(room: Room, reporting: Report) -> None:
    async with reporting(account="elsewhere") as reports:
        room.transports["relay1"].answers.append(NO_SUCH)
        message_id = await room.submit("gone@y.test")
        await room.until(message_id, "bounced")
        assert "elsewhere" in await room.until_event("report_failed")
        await reports.quiet()
        assert reports.reports == []
