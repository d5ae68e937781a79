"""Reports of failure, delay and success: one message for all that is to be told of a message (RFC 3464, RFC 3461).

What is to be told was noted in the transaction that ended the delivery. A report goes through the intake like any
message, under the null reverse-path, so that none is ever made about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

import structlog

from ..crashing import reach
from ..errors import Busy, GatewayError, NotRunning, Refused, StorageFailed, StorageFull
from ..mime.address import Mailbox
from ..mime.dsn import ComposedReport, Report, ReportedRecipient, compose_report
from ..mime.large_body import LargeBody
from ..model.application import ALL_ACCOUNTS, Application
from ..model.clock import Clock
from ..model.content import CHUNK_BYTES, INLINE_BYTES, Content, ContentId
from ..model.envelope import Address, Envelope
from ..model.ids import message_id_text
from ..model.notice import Notice, NoticedMessage, NoticeKind
from ..model.queue import DeliveryState, LaneId, NewMessage
from ..model.submission import Door, Submission
from ..store import QueueStore
from .intake import Intake, with_copy

_log = structlog.get_logger()

#: How long what is noted of one message is gathered, unless all its deliveries have ended.
GATHER = timedelta(seconds=30)

#: Doors whose senders learn by mail; the others look themselves.
_REPORTED_DOORS = frozenset({Door.SMTP.value})

#: What passes: the report is made at another turn.
_PASSING = (StorageFull, StorageFailed, NotRunning, Busy)


class ReportTo(StrEnum):
    """Who is told."""

    SENDER = "sender"
    POSTMASTER = "postmaster"
    BOTH = "both"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationRules:
    """Who is told, by whom and through which account ("": by routing).

    A message comes back whole up to `max_returned_bytes`, where its sender asks for it (RET=FULL). `window_end` says
    until when a lane tries a delivery whose retry window began at a time (and is the message's own, or None).
    """

    to: ReportTo
    postmaster: Address
    sender: Address
    account: str
    hostname: str
    max_returned_bytes: int
    window_end: Callable[[LaneId, datetime, timedelta | None], datetime]


class Reporter:
    """Makes reports until stopped, by the `rules` of the moment. `find_application` knows who sent a message, as far as
    they are still there.
    """

    def __init__(
        self,
        store: QueueStore,
        clock: Clock,
        intake: Intake,
        rules: NotificationRules,
        find_application: Callable[[str], Application | None],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._clock = clock
        self._intake = intake
        self.rules = rules
        self._find_application = find_application
        self._entropy = entropy
        self._noted = asyncio.Event()

    def notice(self) -> None:
        """Something was noted."""
        self._noted.set()

    async def run(self) -> None:
        """Report until cancelled; what fails is logged and tried again at the next turn."""
        while True:
            self._noted.clear()
            try:
                while await self.step():
                    pass
            except GatewayError as error:
                _log.warning("reports_failed", reason=str(error))
            timer = self._clock.call_later(GATHER.total_seconds(), self._noted.set)
            try:
                await self._noted.wait()
            finally:
                timer.cancel()

    async def step(self) -> int:
        """One turn: report what is due; how many messages were dealt with. One that fails holds up no other."""
        noticed = await self._store.noticed(self._clock.now() - GATHER)
        done = 0
        for message in noticed:
            try:
                await self._report(message)
                done += 1
            except StorageFailed as error:
                _log.warning("report_failed", message=message_id_text(message.id), reason=str(error))
        return done

    async def _report(self, noticed: NoticedMessage) -> None:
        told = replace(noticed, notices=tuple(notice for notice in noticed.notices if not notice.is_moot))
        to = self._told(told)
        if not to:
            await self._store.report(noticed, None)
            return
        try:
            message, accounts = await self._made(told, to)
        except _PASSING:
            raise
        except Exception as error:
            # Nobody can be told: that is for the log and the events, and not to be tried again and again.
            is_fault = not isinstance(error, GatewayError)
            _log.error("report_impossible", message=message_id_text(noticed.id), reason=str(error), exc_info=is_fault)
            await self._store.report(noticed, None, "report_failed", str(error))
            return
        reach("D7")
        kinds = ", ".join(sorted({notice.kind.value for notice in told.notices}))
        through = ", ".join(dict.fromkeys(accounts))
        message = with_copy(message)
        if await self._store.report(noticed, message, "reported", f"{kinds}: to {', '.join(to)} through {through}"):
            self._intake.hand_over(message)

    def _told(self, noticed: NoticedMessage) -> tuple[Address, ...]:
        rules = self.rules
        if not noticed.notices or not noticed.reverse_path or noticed.door not in _REPORTED_DOORS:
            return ()
        told = [noticed.reverse_path] if rules.to in (ReportTo.SENDER, ReportTo.BOTH) else []
        # Delays and successes are the sender's own business.
        if rules.to in (ReportTo.POSTMASTER, ReportTo.BOTH) and rules.postmaster and _has_failed(noticed.notices):
            told.append(rules.postmaster)
        return tuple(dict.fromkeys(told))

    async def _made(self, noticed: NoticedMessage, to: tuple[Address, ...]) -> tuple[NewMessage, tuple[str, ...]]:
        """The report as it would be kept, and the account of each recipient.

        Raises:
            Refused: no account can carry it.
            ValueError: it can't be written.
            StorageFull, StorageFailed: a large one could not be staged, or the body not be read.
        """
        report = self._composed(noticed, to)
        submission = self._submission(noticed, to, report, await self._content(noticed, report))
        if not self.rules.account:
            return self._intake.prepare(submission)
        application = replace(submission.application, accounts=(ALL_ACCOUNTS,))
        try:
            return self._intake.prepare(replace(submission, application=application, account=self.rules.account))
        except Refused as error:
            # Whoever removed the account did not mean that nobody is told.
            _log.warning("report_goes_another_way", account=self.rules.account, reason=str(error))
            return self._intake.prepare(submission)

    def _composed(self, noticed: NoticedMessage, to: tuple[Address, ...]) -> ComposedReport:
        rules = self.rules
        report = Report(
            hostname=rules.hostname,
            sender=Mailbox(rules.sender or f"MAILER-DAEMON@{rules.hostname}", "Mail delivery"),
            to=to,
            number=message_id_text(noticed.id),
            accepted=noticed.accepted,
            subject=noticed.subject,
            header_message_id=noticed.header_message_id,
            envid=noticed.envid,
            recipients=tuple(self._recipient(notice) for notice in noticed.notices),
            head=noticed.content.head,
            returns_body=self._returns_body(noticed),
            is_eight_bit=_is_eight_bit(noticed),
        )
        message_id = f"<{self._entropy(12).hex()}@{rules.hostname}>"
        return compose_report(report, date=self._clock.now(), message_id=message_id, boundary_seed=self._entropy(16))

    def _returns_body(self, noticed: NoticedMessage) -> bool:
        """RFC 3461 sections 4.3 and 6.2: only with a failure, and not where it is too large."""
        is_asked = noticed.ret == "FULL" and _has_failed(noticed.notices)
        return is_asked and noticed.content.size_bytes <= self.rules.max_returned_bytes

    async def _content(self, noticed: NoticedMessage, report: ComposedReport) -> Content:
        """The report as content; with a large body it is staged piece by piece, one in memory at a time."""
        body = noticed.content.body if self._returns_body(noticed) else b""
        if isinstance(body, bytes):
            whole = report.opening + body + report.closing
            if len(whole) <= INLINE_BYTES:
                return Content(report.head, whole)
            return await self._staged(report.head, _pieces(whole))

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in _pieces(report.opening):
                yield piece
            async for chunk in self._store.chunks(body):
                yield chunk
            yield report.closing

        return await self._staged(report.head, pieces())

    async def _staged(self, head: bytes, pieces: AsyncIterator[bytes]) -> Content:
        content_id = ContentId(self._entropy(16))
        large = LargeBody(head)
        async for piece in pieces:
            await self._store.stage(content_id, large.chunks, piece)
            large.add(piece)
        return Content(head, large.staged(content_id))

    def _submission(
        self, noticed: NoticedMessage, to: tuple[Address, ...], report: ComposedReport, content: Content
    ) -> Submission:
        # Reports leave by the accounts that the message itself could take.
        found = self._find_application(noticed.application)
        application = Application(
            id=found.id if found is not None else 0,
            name=found.name if found is not None else noticed.application,
            senders=("*",),
            accounts=found.accounts if found is not None else (ALL_ACCOUNTS,),
        )
        is_eight_bit = not report.opening.isascii() or (self._returns_body(noticed) and _is_eight_bit(noticed))
        return Submission(
            door=Door.NOTIFICATION,
            application=application,
            envelope=Envelope("", to, eight_bit=is_eight_bit, smtputf8=not report.head.isascii()),
            content=content,
            received=self._clock.now(),
            with_protocol="",
        )

    def _recipient(self, notice: Notice) -> ReportedRecipient:
        is_delay = notice.kind is NoticeKind.DELAYED
        return ReportedRecipient(
            address=notice.recipient,
            action=notice.kind.value,
            status=_status(notice),
            reply=notice.reply,
            is_quoted=bool(notice.command),
            is_smtp=" " not in notice.command,  # else it is a request over HTTP
            is_given_up=notice.state is DeliveryState.EXPIRED,
            advice=notice.advice,
            orcpt=notice.orcpt,
            remote_host=notice.remote_host,
            last_attempt=notice.last_attempt,
            retried_until=self._retried_until(notice) if is_delay else None,
        )

    def _retried_until(self, notice: Notice) -> datetime:
        return self.rules.window_end(notice.lane, notice.window_from, notice.own_window)


def _has_failed(notices: Sequence[Notice]) -> bool:
    return any(notice.kind is NoticeKind.FAILED for notice in notices)


def _is_eight_bit(noticed: NoticedMessage) -> bool:
    body = noticed.content.body
    return not body.isascii() if isinstance(body, bytes) else noticed.eight_bit


def _status(notice: Notice) -> str:
    """What was given up keeps its 4: another try could succeed (RFC 3463 section 2)."""
    if notice.state is DeliveryState.EXPIRED:
        return notice.status or "4.4.7"
    if notice.kind is NoticeKind.DELAYED:
        return _in_class("4", notice.status)
    return _in_class("5" if notice.kind is NoticeKind.FAILED else "2", notice.status)


def _in_class(digit: str, status: str) -> str:
    return digit + (status[1:] or ".0.0")


async def _pieces(octets: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(octets), CHUNK_BYTES):
        yield octets[start : start + CHUNK_BYTES]
