"""Who is told of what, and when: one report for each message, and never about a report."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from email.utils import parsedate_to_datetime

import pytest

from postroom.errors import StorageFailed
from postroom.model.envelope import Envelope
from postroom.model.outcome import Captured, Delivered, Outcome
from postroom.model.queue import MessageId
from postroom.model.submission import Door
from postroom.queue import maintenance
from postroom.queue.bounce import GATHER, ReportTo
from postroom.store import DeliveryFilter, DeliveryRow, Selection
from postroom.transports import Transaction
from tests.flow.conftest import OK, Room, relay
from tests.flow.reporting import LATER, LOST, NO_SUCH, Reporting, asking, reporting_in
from tests.waited_too_long import rules as rules_of

DAYS = rules_of(timedelta(2), timedelta(14), timedelta(hours=4))


async def submit(room: Room, envelope: Envelope) -> MessageId:
    return (await room.intake.submit(replace(room.submission(), envelope=envelope))).id


async def all_rows(room: Room) -> list[DeliveryRow]:
    return list(await room.store.deliveries(DeliveryFilter()))


async def maintain(room: Room, reports: Reporting, after: timedelta) -> None:
    """Time passes, and maintenance and the reporter look."""
    room.clock.time += after
    await maintenance.step(room.store, room.clock.now(), DAYS)
    room.clock.time += GATHER
    reports.reporter.notice()


async def test_a_refused_recipient_is_reported_to_the_sender(room: Room) -> None:
    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(NO_SUCH)
        report = await reports.report_on(await room.submit("gone@y.test"))
    (sent,) = reports.reports
    assert sent.envelope == Envelope("", ("a@x.test",))
    assert report.message["To"] == "a@x.test"
    assert report.message["Received"].startswith("by mx.test (Postroom) id ")  # from no host, by no protocol
    assert report.message["From"] == "Mail delivery <MAILER-DAEMON@mx.test>"
    assert report.about["Reporting-MTA"] == "dns; mx.test"
    assert parsedate_to_datetime(report.about["Arrival-Date"]) == room.clock.now()
    assert report.actions == [("rfc822; gone@y.test", "failed", "5.1.1")]
    (recipient,) = report.recipients
    assert recipient["Remote-MTA"] == "dns; relay.test"
    assert recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert "<gone@y.test>\r\n    relay.test [192.0.2.1] said: 550 5.1.1 no such user\r\n" in report.words
    assert "What helps: check the address" in report.words
    assert report.returned.get_content_type() == "text/rfc822-headers"


async def test_one_report_tells_of_all_recipients(room: Room) -> None:
    async def mixed(transaction: Transaction) -> list[Outcome]:
        return [NO_SUCH, OK, NO_SUCH]

    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(mixed)
        report = await reports.report_on(await room.submit("b@y.test", "c@y.test", "d@y.test"))
        await reports.quiet()
        assert len(reports.reports) == 1
    assert [recipient for recipient, _, _ in report.actions] == ["rfc822; b@y.test", "rfc822; d@y.test"]


async def test_what_ends_at_different_times_is_gathered_for_a_while(room: Room) -> None:
    async def mixed(transaction: Transaction) -> list[Outcome]:
        return [NO_SUCH, LATER]

    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(mixed)
        message_id = await room.submit("b@y.test", "c@y.test")
        await room.until(message_id, "bounced", "deferred")
        await reports.reporter.step()
        assert reports.reports == []
        room.clock.advance(GATHER)
        reports.reporter.notice()  # should it be looking already, by the time before
        report = await reports.report_on(message_id)
    assert [action for _, action, _ in report.actions] == ["failed"]


async def test_the_report_of_the_last_one_does_not_wait(room: Room) -> None:
    async def mixed(transaction: Transaction) -> list[Outcome]:
        return [NO_SUCH, LATER]

    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.extend([mixed, NO_SUCH])
        message_id = await room.submit("b@y.test", "c@y.test")
        await room.until(message_id, "bounced", "deferred")
        await room.store.retry(Selection(message_id=message_id), room.clock.now())
        room.scheduler.look()
        report = await reports.report_on(message_id)
    assert [action for _, action, _ in report.actions] == ["failed", "failed"]


async def test_nothing_is_reported_about_a_report(room: Room) -> None:
    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.extend([NO_SUCH, NO_SUCH])
        await reports.report_on(await room.submit("gone@y.test"))
        await reports.quiet()
        assert len(reports.reports) == 1
        assert [row.state for row in await all_rows(room)] == ["bounced", "bounced"]


@pytest.mark.parametrize(
    ("to", "told"),
    [
        (ReportTo.SENDER, ("a@x.test",)),
        (ReportTo.POSTMASTER, ("pm@x.test",)),
        (ReportTo.BOTH, ("a@x.test", "pm@x.test")),
    ],
)
async def test_who_is_told(room: Room, to: ReportTo, told: tuple[str, ...]) -> None:
    async with reporting_in(room, to=to, sender="post@x.test") as reports:
        room.transports["relay1"].answers.append(NO_SUCH)
        report = await reports.report_on(await room.submit("gone@y.test"))
    assert [sent.envelope.recipients for sent in reports.reports] == [told]
    assert report.message["To"] == ", ".join(told)
    assert report.message["From"] == "Mail delivery <post@x.test>"


async def test_a_postmaster_who_is_the_sender_is_told_once(room: Room) -> None:
    async with reporting_in(room, to=ReportTo.BOTH, postmaster="a@x.test") as reports:
        room.transports["relay1"].answers.append(NO_SUCH)
        await reports.report_on(await room.submit("gone@y.test"))
    assert [sent.envelope.recipients for sent in reports.reports] == [("a@x.test",)]


async def test_the_postmaster_learns_what_a_sender_who_is_refused_does_not(room: Room) -> None:
    async def sender_refused(transaction: Transaction) -> list[Outcome]:
        return [NO_SUCH, OK]

    async with reporting_in(room, to=ReportTo.BOTH) as reports:
        room.transports["relay1"].answers.extend([NO_SUCH, sender_refused])
        await reports.report_on(await room.submit("gone@y.test"))
        await reports.quiet()
        assert len(reports.reports) == 1
        ends = {row.recipient: row.state.value for row in await all_rows(room)}
    assert ends == {"gone@y.test": "bounced", "a@x.test": "bounced", "pm@x.test": "delivered"}


@pytest.mark.parametrize("silent", ["nobody", "null reverse-path", "door", "NEVER", "SUCCESS", "DELAY"])
async def test_who_is_not_told_of_a_failure(room: Room, silent: str) -> None:
    async with reporting_in(room, to=ReportTo.NONE if silent == "nobody" else ReportTo.SENDER) as reports:
        room.transports["relay1"].answers.append(NO_SUCH)
        submission = room.submission("gone@y.test")
        if silent == "null reverse-path":
            submission = replace(submission, envelope=Envelope("", ("gone@y.test",)))
        elif silent == "door":
            submission = replace(submission, door=Door.REST)
        elif silent != "nobody":
            submission = replace(submission, envelope=asking(notify=(silent,)))
        accepted = await room.intake.submit(submission)
        await room.until(accepted.id, "bounced")
        await reports.quiet()
        room.clock.advance(GATHER)
        reports.reporter.notice()  # should it be looking already, by the time before
        await reports.quiet()
        assert reports.reports == []


async def test_the_postmaster_is_told_of_failures_alone(room: Room) -> None:
    async with reporting_in(room, to=ReportTo.POSTMASTER) as reports:
        room.transports["relay1"].answers.append(OK)
        message_id = await submit(room, asking(notify=("SUCCESS",)))
        await room.until(message_id, "delivered")
        await reports.quiet()
        assert reports.reports == []


async def test_each_recipient_says_what_it_wants(room: Room) -> None:
    async def all_kinds(transaction: Transaction) -> list[Outcome]:
        return [NO_SUCH, NO_SUCH, OK, OK, NO_SUCH]

    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(all_kinds)
        notify = ("NEVER", "FAILURE,DELAY", "SUCCESS", "FAILURE", "")
        recipients = tuple(f"{name}@y.test" for name in "abcde")
        report = await reports.report_on(await submit(room, asking(recipients, notify=notify)))
    assert report.actions == [
        ("rfc822; b@y.test", "failed", "5.1.1"),
        ("rfc822; c@y.test", "relayed", "2.0.0"),
        ("rfc822; e@y.test", "failed", "5.1.1"),
    ]


# Delays -----------------------------------------------------------------------------------------------------------


async def test_a_delay_is_told_once_and_only_to_who_wants_it(room: Room) -> None:
    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(LATER)
        message_id = await submit(room, asking(("b@y.test", "c@y.test"), notify=("", "FAILURE")))
        await room.until(message_id, "deferred", "deferred")
        await maintain(room, reports, timedelta(hours=3, minutes=59))
        await reports.quiet()
        assert reports.reports == []
        await maintain(room, reports, timedelta(minutes=1))
        report = await reports.report_on(message_id)
        for _ in range(3):
            await maintain(room, reports, timedelta(minutes=1))
        await reports.quiet()
        assert len(reports.reports) == 1
    assert report.actions == [("rfc822; b@y.test", "delayed", "4.2.2")]
    accepted = (await room.store.message(message_id)).accepted
    until = parsedate_to_datetime(report.recipients[0]["Will-Retry-Until"])
    assert abs(until - accepted - timedelta(2)) < timedelta(seconds=1)
    assert "still being tried" in report.words


async def test_what_was_never_tried_is_told_as_such(room: Room) -> None:
    room.scheduler.pause(True)
    message_id = await room.submit()
    async with reporting_in(room) as reports:
        await maintain(room, reports, timedelta(hours=4, minutes=1))
        await room.until_event("reported")
        room.scheduler.pause(False)
        report = await reports.report_on(message_id)
    assert report.actions == [("rfc822; b@y.test", "delayed", "4.0.0")]
    assert "nobody has answered for it yet" in report.words
    assert "Diagnostic-Code" not in report.recipients[0]


async def test_what_left_while_its_delay_was_gathered_is_not_told_as_delayed(room: Room) -> None:
    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(LATER)
        message_id = await room.submit()
        await room.until(message_id, "deferred")
        room.clock.time += timedelta(hours=4, minutes=1)
        await maintenance.step(room.store, room.clock.now(), DAYS)
        assert len(await room.store.noticed(room.clock.now() + GATHER)) == 1
        await room.store.retry(Selection(message_id=message_id), room.clock.now())
        room.scheduler.look()
        await room.until(message_id, "delivered")
        await reports.quiet()
        assert reports.reports == []


async def test_a_message_that_is_being_sent_when_its_time_comes_is_told_of(room: Room) -> None:
    async with reporting_in(room) as reports:

        async def slow(transaction: Transaction) -> list[Outcome]:
            await maintain(room, reports, timedelta(hours=4, minutes=1))
            return [LATER]

        room.transports["relay1"].answers.append(slow)
        report = await reports.report_on(await room.submit())
    assert [action for _, action, _ in report.actions] == ["delayed"]


async def test_what_is_held_is_not_told_as_delayed(room: Room) -> None:
    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(LATER)
        message_id = await room.submit()
        await room.until(message_id, "deferred")
        await room.store.hold(Selection(), room.clock.now())
        await maintain(room, reports, timedelta(hours=4, minutes=1))
        await reports.quiet()
        assert reports.reports == []


# Ends without a try -------------------------------------------------------------------------------------------------


async def test_what_expires_is_reported(room: Room) -> None:
    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(LATER)
        message_id = await submit(room, asking(notify=("FAILURE",)))
        await room.until(message_id, "deferred")
        await maintain(room, reports, timedelta(days=2, minutes=1))
        report = await reports.report_on(message_id)
    assert report.actions == [("rfc822; b@y.test", "failed", "4.2.2")]
    assert "given up after too long a time; last: relay.test [192.0.2.1] said: 452 4.2.2 mailbox full" in report.words


async def test_what_was_held_until_it_was_given_up_is_reported(room: Room) -> None:
    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.extend([LOST] * 3)
        message_id = await room.submit()
        for _ in range(2):
            await room.until(message_id, "deferred")
            await room.store.retry(Selection(message_id=message_id), room.clock.now())
            room.scheduler.look()
        await room.until(message_id, "held")
        await maintain(room, reports, timedelta(days=15))
        report = await reports.report_on(message_id)
    assert report.actions == [("rfc822; b@y.test", "failed", "4.4.2")]
    assert "last: the relay may have it: the end of data was written" in report.words
    assert report.recipients[0]["Diagnostic-Code"].startswith("x-postroom; the relay may have it")


async def test_what_a_person_cancels_is_not_reported(room: Room) -> None:
    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(LATER)
        message_id = await room.submit()
        await room.until(message_id, "deferred")
        assert await room.store.cancel(Selection(message_id=message_id), room.clock.now()) == 1
        room.clock.advance(GATHER)
        reports.reporter.notice()  # should it be looking already, by the time before
        await reports.quiet()
        assert reports.reports == []


# Success ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relay_reports", [False, True])
async def test_success_is_told_where_it_is_asked_and_the_relay_does_not(room: Room, relay_reports: bool) -> None:
    async with reporting_in(room) as reports:
        taken = Delivered(reply=OK.reply, remote_host="192.0.2.1 [192.0.2.1]", reports=relay_reports)
        room.transports["relay1"].answers.append(taken)
        wanted = asking(ret="FULL", envid="QQ+2B1", notify=("SUCCESS,FAILURE",), orcpt=("rfc822;old+40z.test",))
        message_id = await submit(room, wanted)
        await room.until(message_id, "delivered")
        (attempt,) = (await room.store.message(message_id)).attempts
        if relay_reports:
            await reports.quiet()
            assert reports.reports == []
            assert "the relay has to make it" in attempt.advice
            return
        assert attempt.advice == ""
        report = await reports.report_on(message_id)
    assert report.about["Original-Envelope-Id"] == "QQ+1"
    (recipient,) = report.recipients
    assert recipient["Original-Recipient"] == "rfc822; old@z.test"
    assert recipient["Remote-MTA"] == "dns; [192.0.2.1]"
    assert report.actions == [("rfc822; b@y.test", "relayed", "2.0.0")]
    assert report.returned.get_content_type() == "text/rfc822-headers"


async def test_what_a_sandbox_captured_is_not_told_as_passed_on(room: Room) -> None:
    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(Captured())
        message_id = await submit(room, asking(notify=("SUCCESS",)))
        await room.until(message_id, "captured")
        await reports.quiet()
        assert reports.reports == []


# The way out --------------------------------------------------------------------------------------------------------


async def test_reports_leave_through_the_account_that_is_set(room: Room) -> None:
    room.accounts.append(relay(2))
    room.scheduler.follow(room.accounts)
    application = replace(room.application, accounts=("relay1",))
    async with reporting_in(room, account="RELAY2") as reports:
        room.transports["relay1"].answers.append(NO_SUCH)
        accepted = await room.intake.submit(replace(room.submission(), application=application))
        await room.until(accepted.id, "bounced")
        assert "through relay2" in await room.until_event("reported")
        await reports.quiet()
        assert reports.reports == []
    (sent,) = room.transports["relay2"].sent
    assert sent.envelope == Envelope("", ("a@x.test",))


async def test_without_that_account_they_take_the_way_of_their_messages(room: Room) -> None:
    async with reporting_in(room, account="elsewhere") as reports:
        room.transports["relay1"].answers.append(NO_SUCH)
        await reports.report_on(await room.submit("gone@y.test"))
        assert "through relay1" in await room.until_event("reported")


async def test_a_report_that_nothing_can_carry_is_noted_and_given_up(room: Room) -> None:
    room.application = replace(room.application, accounts=("relay1",))
    async with reporting_in(room) as reports:

        async def and_then_no_account(transaction: Transaction) -> list[Outcome]:
            room.application = replace(room.application, accounts=("gone",))
            return [NO_SUCH]

        room.transports["relay1"].answers.append(and_then_no_account)
        message_id = await room.submit("gone@y.test")
        await room.until(message_id, "bounced")
        assert "no account is there" in await room.until_event("report_failed")
        await reports.quiet()
        assert reports.reports == []


async def test_one_report_that_fails_holds_up_no_other(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.transports["relay1"].answers.extend([NO_SUCH, NO_SUCH])
    broken, sound = [await room.submit("b@y.test"), await room.submit("c@y.test")]
    await room.until(broken, "bounced")
    await room.until(sound, "bounced")
    prepare = room.intake.prepare
    faults = iter([StorageFailed("no"), RuntimeError("a fault of ours")])

    def fails_once(submission: object) -> object:
        error = next(faults, None)
        if error is not None:
            raise error
        return prepare(submission)  # type: ignore[arg-type]

    monkeypatch.setattr(room.intake, "prepare", fails_once)
    async with reporting_in(room) as reports:
        assert "a fault of ours" in await room.until_event("report_failed")
        report = await reports.report_on(broken)
        await reports.quiet()
        assert len(reports.reports) == 1
    assert report.actions == [("rfc822; b@y.test", "failed", "5.1.1")]
