"""The one door through which any message enters the queue: rights, loop check, trace, route, one transaction."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from email.utils import format_datetime
from types import MappingProxyType

from ..errors import Fault, InvalidInput, MaybeStored, Refused
from ..mime.address import parse_mailboxes
from ..mime.head import HeadFields, edit, scan
from ..mime.structure import refuse_deep_parts
from ..mime.words import read_text
from ..model.account import Account
from ..model.clock import Clock
from ..model.connection import SealedConnection
from ..model.content import Content
from ..model.envelope import Address, DsnRequest, Envelope
from ..model.ids import MessageIds, message_id_text
from ..model.queue import (
    Aside,
    DueDelivery,
    DueMessage,
    LaneId,
    MessageId,
    NewDelivery,
    NewMessage,
    PriorityClass,
    flow_of,
)
from ..model.submission import Accepted, Door, Submission
from ..pending import Pending
from ..policy.patterns import matches_any
from ..policy.routing import RoutingTable
from ..policy.suppressions import keys_of
from ..store import QueueStore
from . import header_doors
from .admission import Admission, Admitted

#: Fields that never travel on (SPEC section 4).
REMOVED = frozenset({b"bcc", b"resent-bcc", b"return-path", b"x-postroom-*"})

#: Received fields in all, and of this gateway, from which a message is going in circles.
MAX_RECEIVED = 50
MAX_OWN_RECEIVED = 2

_SUBJECT_CHARACTERS = 500

_NOTIFICATION, _URGENT = Door.NOTIFICATION, PriorityClass.URGENT  # an enum's member costs a look-up each time

Offer = Callable[[DueMessage], None]

#: Seals the connection that a message brings, by what its accounts and application allow; raises as `Intake.submit`.
Seal = Callable[[Submission, MessageId, Sequence[Account]], SealedConnection]


class Intake:
    """Accepts submissions for one gateway.

    `routes` gives the list of accounts as it is now; `offer` hands a message that has just become durable to the
    scheduler, with its content, so that nothing need be read back. Bodies in memory are looked at for parts nested
    deeper than `max_mime_depth`; staged ones were by who staged them. `refused` has applications by id whose mail is
    not taken for now, and why; `admission` the limits that count here.
    """

    def __init__(
        self,
        store: QueueStore,
        clock: Clock,
        routes: Callable[[], RoutingTable],
        offer: Offer,
        hostname: str,
        max_mime_depth: int = 100,
        refused: Mapping[int, str] = MappingProxyType({}),
        admission: Admission | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._routes = routes
        self._offer = offer
        self._hostname = hostname
        self.max_mime_depth = max_mime_depth
        self._refused = refused
        self._admission = admission
        self.archive_bcc = ""  # gets a copy of everything
        self.seal: Seal = _takes_none
        self._own_by = f"by {hostname} (Postroom) ".encode()
        self._date = (0, b"")
        self._ids = MessageIds()
        self._entropy = b""

    def submit(self, submission: Submission) -> Pending[Accepted]:
        """Take a message; the result comes once it is durable, or is StorageFull or StorageFailed.

        Raises:
            Refused: the application may not send so, no account matches, the message loops or is nested too deeply.
            InvalidInput: there is no recipient, the header can't be read where a rule needs it, or the connection that
                the message brings can't be used.
            LimitReached: the application, or an account that refuses, may send no more for now.
        """
        message, accounts = self.prepare(submission)
        admission = self._admission
        if admission is None or not admission.counts or submission.resubmits is not None:  # by a person, counted once
            return self._keep(message, accounts)
        admitted = admission.admit(message)
        message = replace(message, usage=admitted.rows, repeats=admission.repeats(message))
        return self._keep(message, accounts, admitted)

    def prepare(self, submission: Submission) -> tuple[NewMessage, tuple[str, ...]]:
        """The message as it would be kept, and the account of each recipient; raises as `submit` does."""
        application, envelope = submission.application, submission.envelope
        if not application.enabled:
            raise Refused(f"application {application.name!r} is switched off")
        if application.id in self._refused:
            raise Refused(self._refused[application.id], status="4.3.5", reply_code=451)
        if not envelope.recipients:
            raise InvalidInput(Fault("recipients", "there is none", "name at least one recipient"))
        fields = scan(submission.content.head)
        if submission.resubmits is None:  # a resubmitted message was looked at, and carries our own trace
            self._refuse_loop(fields)
            body = submission.content.body
            if isinstance(body, bytes) and submission.door is not _NOTIFICATION:  # which holds what was looked at
                refuse_deep_parts(fields.head, body, self.max_mime_depth)
        check_header_sender(submission, fields)
        if application.header_doors:
            submission = header_doors.obeyed(submission, fields)
        if submission.priority is _URGENT and not application.urgent and submission.resubmits is None:
            mend = f"postroom applications edit {application.name} --urgent"
            raise Refused(f"application {application.name!r} may not send urgent mail: {mend}")
        return self._message(submission, fields)

    def hand_over(self, message: NewMessage, aside: Container[int] = ()) -> None:
        """Tell the scheduler of a message that has become durable, but for the deliveries that do not go on."""
        if aside:
            message = replace(message, deliveries=tuple([one for one in message.deliveries if one.n not in aside]))
        if message.deliveries:
            for due in _due(message):
                self._offer(due)

    def _keep(
        self, message: NewMessage, accounts: tuple[str, ...], admitted: Admitted | None = None
    ) -> Pending[Accepted]:
        accepted: Pending[Accepted] = Pending()
        message = with_copy(message)

        def is_durable(stored: Pending[Aside]) -> None:
            error = stored.exception()
            if error is not None:
                if admitted is not None and not isinstance(error, MaybeStored):
                    admitted.take_back()
                accepted.set_exception(error)
                return
            accepted.set_result(Accepted(message.id, accounts))
            aside = stored.result()
            if aside.held and self._admission is not None:
                self._admission.held(message)
            self.hand_over(message, aside.held + aside.ended)

        self._store.enqueue(message).add_done_callback(is_durable)
        return accepted

    def _message(self, submission: Submission, fields: HeadFields) -> tuple[NewMessage, tuple[str, ...]]:
        now = self._clock.now()
        message_id = self._ids.make(int(now.timestamp() * 1000), self._random_octets())
        envelope = submission.envelope
        recipients = tuple(map(self._qualified, envelope.recipients))
        if recipients != envelope.recipients or envelope.smtputf8 or len(set(recipients)) < len(recipients):
            envelope = as_stored(envelope, recipients, fields.head)
            recipients = envelope.recipients
        deliveries, accounts = self._routed(submission, fields, recipients)
        connection = None
        if submission.connection is not None:
            connection = self.seal(submission, message_id, self._accounts_of(deliveries))
        head, header_message_id = self._trace(submission, fields, message_id, recipients, now)
        application = submission.application
        message = NewMessage(
            id=message_id,
            door=submission.door,
            application_id=application.id,
            application=application.name,
            envelope=envelope,
            content=Content(head, submission.content.body),
            accepted=now,
            subject=readable_subject(fields.first(b"subject")),
            header_message_id=header_message_id,
            peer=submission.peer,
            priority=submission.priority,
            deliveries=deliveries,
            resubmits=submission.resubmits,
            tag=submission.tag,
            retry=submission.retry,
            named=bool(submission.account) or connection is not None,  # no other account may obey it
            suppressible=_suppressible(submission, recipients) if application.apply_suppressions else (),
            copy=self._copy(submission, fields, deliveries) if self.archive_bcc else None,
            connection=connection,
        )
        return message, accounts

    def _accounts_of(self, deliveries: Sequence[NewDelivery]) -> list[Account]:
        found = map(self._routes().by_id, dict.fromkeys(one.lane for one in deliveries))
        return [account for account in found if account is not None]

    def _routed(
        self, submission: Submission, fields: HeadFields, recipients: tuple[Address, ...]
    ) -> tuple[tuple[NewDelivery, ...], tuple[str, ...]]:
        """A delivery for each recipient on the lane of its account, and the names of the accounts."""
        routes = self._routes()
        senders: Sequence[str] = (submission.envelope.reverse_path,)
        if routes.asks_for_sender:
            senders = senders_of(submission.envelope.reverse_path, fields)
        deliveries, names = [], []
        for n, recipient in enumerate(recipients):
            account = routes.route(submission.application, senders, recipient, submission.account)
            deliveries.append(NewDelivery(n=n, recipient=recipient, lane=LaneId(account.id)))
            names.append(account.name)
        return tuple(deliveries), tuple(names)

    def _copy(
        self, submission: Submission, fields: HeadFields, deliveries: Sequence[NewDelivery]
    ) -> NewDelivery | None:
        """The delivery to the archive, where it is no recipient: by its own route, else by that of the first one. It
        goes with its message where that brings a connection."""
        if any(one.recipient.lower() == self.archive_bcc.lower() for one in deliveries):
            return None
        if submission.connection is not None:
            return replace(deliveries[0], recipient=self.archive_bcc, n=len(deliveries))
        try:
            ((copy,), _) = self._routed(submission, fields, (self.archive_bcc,))
        except Refused:  # which is no fault of the sender
            copy = replace(deliveries[0], recipient=self.archive_bcc)
        return replace(copy, n=len(deliveries))

    def _trace(
        self,
        submission: Submission,
        fields: HeadFields,
        message_id: MessageId,
        recipients: tuple[str, ...],
        now: datetime,
    ) -> tuple[bytes, str]:
        """The head as it is stored, and the Message-ID: Received on top, Date and Message-ID where missing or empty."""
        text_id = message_id_text(message_id)
        date = self._date_field(now)
        missing, removed = b"", REMOVED
        header_date = fields.first(b"date") or _further(fields, b"date")
        if not header_date:
            missing += b"Date: " + date + b"\r\n"
            removed = removed if header_date is None else removed | {b"date"}
        header_message_id = fields.first(b"message-id") or _further(fields, b"message-id")
        if not header_message_id:
            removed = removed if header_message_id is None else removed | {b"message-id"}
            header_message_id = f"<{text_id}@{self._hostname}>".encode()
            missing += b"Message-ID: " + header_message_id + b"\r\n"
        # What was made on this machine came from no host, and by no protocol of mail.
        peer, keyword = submission.peer, submission.with_protocol
        sender = f"from {submission.helo or 'localhost'} ([{peer}])\r\n\t" if peer else ""
        protocol = f" with {keyword}" if keyword else ""
        # One recipient may be named; several would show blind copies to each other (RFC 5321 section 7.2).
        named = f"\r\n\tfor <{recipients[0]}>" if len(recipients) == 1 else ""
        received = (f"Received: {sender}by {self._hostname} (Postroom){protocol} id {text_id}{named}; ").encode() + date
        head = edit(submission.content.head, prepend=received + b"\r\n", remove=removed, append=missing)
        return head, header_message_id.decode("utf-8", "replace")[:998]

    def _qualified(self, recipient: Address) -> Address:
        """`<postmaster>` without a domain is the postmaster here (RFC 5321 section 4.1.1.3)."""
        return recipient if "@" in recipient else f"{recipient}@{self._hostname}"

    def _random_octets(self) -> bytes:
        """Eight octets; drawn many at a time, since each system call lets the other threads in."""
        if len(self._entropy) < 8:
            self._entropy = os.urandom(4096)
        octets, self._entropy = self._entropy[:8], self._entropy[8:]
        return octets

    def _date_field(self, now: datetime) -> bytes:
        second = int(now.timestamp())
        if self._date[0] != second:
            self._date = (second, format_datetime(now).encode())
        return self._date[1]

    def _refuse_loop(self, fields: HeadFields) -> None:
        received = fields.count(b"received")
        own = 0
        if self._own_by in fields.head:
            own = sum(1 for value in fields.all(b"received") if self._own_by in value)
        if received >= MAX_RECEIVED or own >= MAX_OWN_RECEIVED:
            raise Refused("the message goes in circles (too many Received fields)", status="5.4.6", reply_code=554)


def _takes_none(submission: Submission, message_id: MessageId, accounts: Sequence[Account]) -> SealedConnection:
    raise Refused("no message may bring a connection of its own here")


def _suppressible(submission: Submission, recipients: Sequence[Address]) -> tuple[tuple[str, ...], ...]:
    """What the suppression list is asked of each recipient; nothing for what Postroom itself has to say."""
    return () if submission.door is _NOTIFICATION else tuple(map(keys_of, recipients))


def _further(fields: HeadFields, name: bytes) -> bytes | None:
    """The first value that is not empty; b"" where all are, None where there is no such field."""
    values = fields.all(name)
    return next(filter(None, values), values[0] if values else None)


def as_stored(envelope: Envelope, recipients: tuple[Address, ...], head: bytes) -> Envelope:
    """`envelope` with each of `recipients` once, and what the first one of equals asks for; SMTPUTF8 as `head` needs.

    RFC 6531 is declared for a header section that is not ASCII, and often for one that is.
    """
    once: dict[Address, int] = {}
    for n, recipient in enumerate(recipients):
        once.setdefault(recipient, n)
    dsn = envelope.dsn
    if dsn is not None:
        notify, orcpt = dsn.notify, dsn.orcpt
        dsn = replace(
            dsn, notify=tuple([notify[n] for n in once.values()]), orcpt=tuple([orcpt[n] for n in once.values()])
        )
    return replace(
        envelope,
        recipients=tuple(once),
        smtputf8=envelope.smtputf8 and not head.isascii(),
        dsn=dsn,
    )


def with_copy(message: NewMessage) -> NewMessage:
    """The message with its copy to the archive as one more delivery, of which nobody is told (NOTIFY=NEVER). Limits,
    repeat guard and suppression list were asked without it."""
    copy = message.copy
    if copy is None:
        return message
    nothing = ("",) * len(message.deliveries)
    dsn = message.envelope.dsn or DsnRequest("", "", nothing, nothing)
    dsn = replace(dsn, notify=(*dsn.notify, "NEVER"), orcpt=(*dsn.orcpt, ""))
    envelope = replace(message.envelope, recipients=(*message.envelope.recipients, copy.recipient), dsn=dsn)
    repeats = message.repeats
    if repeats is not None:  # the id comes only once, so it is never held
        repeats = replace(repeats, digests=(*repeats.digests, message.id))
    return replace(
        message,
        envelope=envelope,
        deliveries=(*message.deliveries, copy),
        repeats=repeats,
        suppressible=(*message.suppressible, ()) if message.suppressible else (),
        copy=None,
    )


def check_header_sender(submission: Submission, fields: HeadFields) -> None:
    """The application must be allowed every address in From and Sender (SPEC section 4).

    Raises:
        Refused: an address is not allowed, or can't be read; the reason names it.
    """
    patterns = submission.application.senders
    if "*" in patterns:
        return
    for name in (b"from", b"sender"):
        for value in fields.all(name):
            try:
                addresses = parse_mailboxes(value)
            except ValueError as error:
                raise Refused(f"the {name.decode().title()} field can't be read: {error}") from None
            for address in addresses:
                if not matches_any(patterns, address):
                    raise Refused(
                        f"application {submission.application.name!r} may not send as {address} "
                        f"({name.decode().title()} field): add it to the application's allowed senders"
                    )


def readable_subject(value: bytes | None) -> str:
    """The subject for lists: encoded words (RFC 2047) decoded where they can be."""
    return read_text(value)[:_SUBJECT_CHARACTERS] if value else ""


def senders_of(reverse_path: Address, fields: HeadFields) -> tuple[str, ...]:
    """Who sends, for the sender patterns of accounts: the reverse-path, and the addresses of From where they can be
    read."""
    senders = [reverse_path]
    for value in fields.all(b"from"):
        try:
            senders += parse_mailboxes(value)
        except ValueError:
            continue
    return tuple(dict.fromkeys(senders))


def _due(message: NewMessage) -> list[DueMessage]:
    """The message as each lane that has deliveries of it gets it."""
    first = message.deliveries[0].lane
    if all(delivery.lane == first for delivery in message.deliveries):
        return [_due_on(first, message, message.deliveries)]
    by_lane: dict[LaneId, list[NewDelivery]] = {}
    for delivery in message.deliveries:
        by_lane.setdefault(delivery.lane, []).append(delivery)
    return [_due_on(lane, message, deliveries) for lane, deliveries in by_lane.items()]


def _due_on(lane: LaneId, message: NewMessage, deliveries: Sequence[NewDelivery]) -> DueMessage:
    envelope = message.envelope
    dsn = envelope.dsn
    if dsn is None:
        asked = [DueDelivery(n=d.n, recipient=d.recipient) for d in deliveries]
    else:
        asked = [DueDelivery(d.n, d.recipient, notify=dsn.notify[d.n], orcpt=dsn.orcpt[d.n]) for d in deliveries]
    return DueMessage(
        id=message.id,
        lane=lane,
        priority=message.priority,
        reverse_path=envelope.reverse_path,
        eight_bit=envelope.eight_bit,
        smtputf8=envelope.smtputf8,
        window_from=message.accepted,
        accepted=message.accepted,
        deliveries=tuple(asked),
        content=message.content,
        ret=dsn.ret if dsn is not None else "",
        envid=dsn.envid if dsn is not None else "",
        retry=message.retry,
        flow=flow_of(message.application_id, own=message.connection is not None),
        named=message.named,
        connection=message.connection,
    )
