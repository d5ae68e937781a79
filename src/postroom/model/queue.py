"""The states of a delivery and who may move it (SPEC section 1, DESIGN section 3; docs/queue.md draws from here)."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum, StrEnum
from typing import NewType

from .account import Retry
from .connection import SealedConnection
from .content import Content
from .envelope import Address, Envelope
from .record import record
from .suppression import Suppression
from .usage import Usage

#: A message's id: the 16 octets of a UUIDv7 (RFC 9562).
MessageId = NewType("MessageId", bytes)

#: A lane: order, throttle and warm connections of one account. The same number as the account's id.
LaneId = NewType("LaneId", int)

#: Whose mail it is when senders take turns: the number of an application (see `flow_of`).
FlowId = NewType("FlowId", int)

#: Where the flows of mail begin that brings connections of its own.
_OWN_FLOWS = 1 << 30

#: Stamped on claims; a newer one makes every older claim void (DESIGN section 3).
FencingToken = NewType("FencingToken", int)


def flow_of(application_id: int, *, own: bool) -> FlowId:
    """The flow of an application's mail; what brings connections of its own has one apart, to hold up no other."""
    return FlowId(application_id + _OWN_FLOWS if own else application_id)


def application_of(flow: FlowId) -> int:
    """The number of the application whose flow it is."""
    return flow - _OWN_FLOWS if flow >= _OWN_FLOWS else flow


class DeliveryState(StrEnum):
    """Where one delivery is."""

    QUEUED = "queued"
    SENDING = "sending"
    DEFERRED = "deferred"
    HELD = "held"
    DELIVERED = "delivered"
    CAPTURED = "captured"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Ended: never changes again."""
        return self in FINAL


S = DeliveryState
FINAL: frozenset[DeliveryState] = frozenset({S.DELIVERED, S.CAPTURED, S.BOUNCED, S.EXPIRED, S.CANCELLED})
WAITING: frozenset[DeliveryState] = frozenset({S.QUEUED, S.DEFERRED})

#: Every legal move and who makes it. The store's UPDATEs are conditional on the left side.
TRANSITIONS: dict[tuple[DeliveryState, DeliveryState], str] = {
    (S.QUEUED, S.SENDING): "claim",
    (S.DEFERRED, S.SENDING): "claim",
    (S.SENDING, S.DELIVERED): "complete",
    (S.SENDING, S.CAPTURED): "complete",
    (S.SENDING, S.BOUNCED): "complete",
    (S.SENDING, S.DEFERRED): "complete, or recovery after a crash",
    (S.SENDING, S.EXPIRED): "complete, when the retry window has ended",
    (S.SENDING, S.HELD): "complete, at the third unknown",
    (S.SENDING, S.QUEUED): "unclaim, when nothing was written",
    (S.QUEUED, S.BOUNCED): "intake, for a recipient on the suppression list",
    (S.QUEUED, S.HELD): "hold",
    (S.DEFERRED, S.HELD): "hold",
    (S.HELD, S.QUEUED): "release",
    (S.DEFERRED, S.QUEUED): "retry now, or re-route",
    (S.QUEUED, S.CANCELLED): "cancel",
    (S.DEFERRED, S.CANCELLED): "cancel",
    (S.HELD, S.CANCELLED): "cancel",
    (S.QUEUED, S.EXPIRED): "maintenance",
    (S.DEFERRED, S.EXPIRED): "maintenance",
    (S.HELD, S.EXPIRED): "maintenance",
}
del S


class PriorityClass(IntEnum):
    """Order of claiming: the smaller first (SPEC section 2.8)."""

    URGENT = 0
    NORMAL = 1
    BULK = 2


@record
class NewDelivery:
    """One recipient of a message about to be stored; `n` counts from 0 within the message."""

    n: int
    recipient: Address
    lane: LaneId


@record
class RepeatCheck:
    """What the repeat guard of an application asks of a new message (SPEC section 4).

    `digests` are keyed hashes of recipient and body, one for each delivery. Each is counted in `bucket`, which counts
    until `ends`; a delivery is held for `reason` where, at `now`, `most` or more count with it. Times are microseconds
    of the clock of limits.
    """

    digests: tuple[bytes, ...]
    most: int
    now: int
    bucket: int
    ends: int
    reason: str


@record
class NewMessage:
    """A message about to be stored, as intake made it. Everything in it becomes durable in one transaction.

    `named`: it named its account, and takes no other; `usage` is what it adds to limits that count at intake.
    `suppressible` are the keys of entries of the suppression list that would end each delivery; empty: it is not asked.
    `copy` is the delivery to the archive that goes with it, which is nobody's recipient yet (see `with_copy`).
    `connection` is one of its own that it goes over.
    """

    id: MessageId
    door: str
    application_id: int
    application: str
    envelope: Envelope
    content: Content
    accepted: datetime
    subject: str
    header_message_id: str
    peer: str
    priority: PriorityClass
    deliveries: tuple[NewDelivery, ...]
    resubmits: MessageId | None = None
    tag: str = ""
    named: bool = False
    usage: tuple[Usage, ...] = ()
    repeats: RepeatCheck | None = None
    retry: Retry | None = None
    suppressible: tuple[tuple[str, ...], ...] = ()
    copy: NewDelivery | None = None
    connection: SealedConnection | None = None


@record
class Aside:
    """The deliveries of a new message that do not go on, by number: held by the repeat guard, or ended by the
    suppression list."""

    held: tuple[int, ...] = ()
    ended: tuple[int, ...] = ()


NOTHING_ASIDE = Aside()


@record
class DueDelivery:
    """What the queue knows of one delivery that may be claimed; `notify` and `orcpt` as in `DsnRequest`; `twice`: a
    crash left it in doubt."""

    n: int
    recipient: Address
    tries: int = 0
    unknowns: int = 0
    notify: str = ""
    orcpt: str = ""
    twice: bool = False


@record
class DueMessage:
    """Deliveries of one message on one lane that may be claimed together, with what sending them needs.

    `content.body` is staged for large messages and read while it is sent. `window_from` starts the retry window.
    `named`: it named its account, and takes no other. `connection` is one of its own that it goes over.
    """

    id: MessageId
    lane: LaneId
    priority: PriorityClass
    reverse_path: Address
    eight_bit: bool
    smtputf8: bool
    window_from: datetime
    accepted: datetime
    deliveries: tuple[DueDelivery, ...]
    content: Content
    ret: str = ""
    envid: str = ""
    flow: FlowId = FlowId(0)
    retry: Retry | None = None
    named: bool = False
    connection: SealedConnection | None = None


@record
class DeliveryResult:
    """How one delivery leaves `sending`: its new state, and the row of the attempt.

    `due` is set for DEFERRED; `counts` is False when the try must not be counted (account failures, SPEC 2.8);
    `outcome` is the name of the outcome's class in small letters; `reply` the words of the remote side or of Postroom.
    `notice` is a `NoticeKind`'s value where the sender shall be told. `suppression`: the recipient goes on the
    suppression list.
    """

    n: int
    state: DeliveryState
    outcome: str
    status: str = ""
    reply: str = ""
    command: str = ""
    advice: str = ""
    due: datetime | None = None
    counts: bool = True
    unknown: bool = False
    notice: str = ""
    suppression: Suppression | None = None


@record
class AttemptRecord:
    """One transaction's results: stored with the new states, and what it adds to limits, in one transaction.

    `sent_to` is the address that it went to, where that is other than its recipients (the staging guard). With
    `own_connection` the message brought a connection, which ends with it.
    """

    message_id: MessageId
    lane: LaneId
    token: FencingToken
    account: str
    started: datetime
    ended: datetime
    remote_host: str
    results: tuple[DeliveryResult, ...]
    transcript: str = ""
    usage: tuple[Usage, ...] = ()
    sent_to: str = ""
    own_connection: bool = False
