"""Reports of failure, delay and success: one message for all that is to be told of a message (RFC 3464, RFC 3461).

What is to be told was noted in the transaction that ended the delivery. A report goes through the intake like any
message, under the null reverse-path, so that none is ever made about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import structlog

from ..crashing import reach
from ..errors import GatewayError
from ..mime.address import Mailbox
from ..mime.dsn import Report, ReportedRecipient, compose_report
from ..mime.head import split
from ..model.application import ALL_ACCOUNTS, Application
from ..model.clock import Clock
from ..model.content import Content
from ..model.envelope import Address, Envelope
from ..model.notice import Notice, NoticedMessage, NoticeKind
from ..model.submission import Door, Submission
from ..store import QueueStore
from .intake import Intake

_log = structlog.get_logger()

#: How long what is noted of one message is gathered, unless all its deliveries have ended.
GATHER = timedelta(seconds=30)

#: A body up to this size comes back with its report where the sender asks for it (RET=FULL).
RETURNED_BYTES = 256 * 1024

#: Doors whose senders learn by mail; the others look themselves.
_REPORTED_DOORS = frozenset({Door.SMTP.value})


class ReportTo(StrEnum):
    """Who is told."""

    SENDER = "sender"
    POSTMASTER = "postmaster"
    BOTH = "both"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationRules:
    """Who is told, by whom and through which account ("": by routing); `retry_window` is how long waiting may last."""

    to: ReportTo
    postmaster: Address
    sender: Address
    account: str
    hostname: str
    retry_window: timedelta


class Reporter:
    """Makes reports until stopped. `find_application` knows who sent a message, as far as they are still there."""

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
        self._rules = rules
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
        """One turn: report what is due; how many messages were dealt with."""
        noticed = await self._store.noticed(self._clock.now() - GATHER)
        for message in noticed:
            await self._report(message)
        return len(noticed)

    async def _report(self, noticed: NoticedMessage) -> None:
        to = self._told(noticed)
        if not to:
            await self._store.report(noticed, None)
            return
        try:
            message, account = self._intake.prepare(self._submission(noticed, to))
        except (GatewayError, ValueError) as error:
            # Nobody can be told: that is for the log and the events, and not to be tried again and again.
            _log.warning("report_impossible", message=noticed.id.hex(), reason=str(error))
            await self._store.report(noticed, None, "report_failed", str(error))
            return
        reach("D7")
        kinds = ", ".join(sorted({notice.kind.value for notice in noticed.notices}))
        if await self._store.report(noticed, message, "reported", f"{kinds}: to {', '.join(to)} through {account}"):
            self._intake.hand_over(message)

    def _told(self, noticed: NoticedMessage) -> tuple[Address, ...]:
        rules = self._rules
        if not noticed.reverse_path or noticed.door not in _REPORTED_DOORS or rules.to is ReportTo.NONE:
            return ()
        told = [noticed.reverse_path] if rules.to in (ReportTo.SENDER, ReportTo.BOTH) else []
        # Delays and successes are the sender's own business.
        if rules.to in (ReportTo.POSTMASTER, ReportTo.BOTH) and rules.postmaster and _has_failed(noticed.notices):
            told.append(rules.postmaster)
        return tuple(dict.fromkeys(told))

    def _submission(self, noticed: NoticedMessage, to: tuple[Address, ...]) -> Submission:
        rules, now = self._rules, self._clock.now()
        full = noticed.ret == "FULL" and _has_failed(noticed.notices)  # RFC 3461 section 4.3: failures alone
        body = noticed.content.body
        report = Report(
            hostname=rules.hostname,
            sender=Mailbox(rules.sender or f"MAILER-DAEMON@{rules.hostname}", "Mail delivery"),
            to=tuple(Mailbox(address, "") for address in to),
            accepted=noticed.accepted,
            subject=noticed.subject,
            header_message_id=noticed.header_message_id,
            envid=noticed.envid,
            recipients=tuple(self._recipient(noticed, notice) for notice in noticed.notices),
            head=noticed.content.head,
            body=body if full and isinstance(body, bytes) and 0 < len(body) <= RETURNED_BYTES else None,
        )
        seed = self._entropy(16)
        message_id = f"<{self._entropy(12).hex()}@{rules.hostname}>"
        head, body = split(compose_report(report, date=now, message_id=message_id, boundary_seed=seed))
        return Submission(
            door=Door.NOTIFICATION,
            application=self._rights(noticed),
            envelope=Envelope("", to, eight_bit=not body.isascii(), smtputf8=not head.isascii()),
            content=Content(head, body),
            received=now,
            account=rules.account,
        )

    def _rights(self, noticed: NoticedMessage) -> Application:
        """Reports leave by the accounts that the message itself could take, or by the one that is set."""
        found = self._find_application(noticed.application)
        accounts = found.accounts if found is not None and not self._rules.account else (ALL_ACCOUNTS,)
        name = found.name if found is not None else noticed.application
        return Application(id=found.id if found is not None else 0, name=name, senders=("*",), accounts=accounts)

    def _recipient(self, noticed: NoticedMessage, notice: Notice) -> ReportedRecipient:
        is_delay = notice.kind is NoticeKind.DELAYED
        return ReportedRecipient(
            address=notice.recipient,
            action=notice.kind.value,
            status=_status(notice),
            reply=notice.reply,
            advice=notice.advice,
            orcpt=notice.orcpt,
            remote_host=notice.remote_host,
            last_attempt=notice.last_attempt,
            retried_until=noticed.accepted + self._rules.retry_window if is_delay else None,
        )


def _has_failed(notices: Sequence[Notice]) -> bool:
    return any(notice.kind is NoticeKind.FAILED for notice in notices)


def _status(notice: Notice) -> str:
    """The class of a status says what became of the recipient in the end (RFC 3464 section 2.3.4)."""
    digits = notice.status or "4.4.7"
    if notice.kind is NoticeKind.FAILED:
        return "5" + digits[1:] if digits != "4.4.7" else "5.4.7"
    return ("4" if notice.kind is NoticeKind.DELAYED else "2") + digits[1:]
