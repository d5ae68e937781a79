"""The store's interfaces: verbs of the queue, not tables (DESIGN section 4); implemented by `postroom.store.database`.

Every verb that writes returns a future of the running loop. It is resolved after the commit that made the write
durable, or holds a GatewayError (`StorageFull`, `StorageFailed`) when nothing of it was kept; the verbs that every
message needs return a `Pending`, which is told without a turn of the loop. Verbs take effect in the
order of their calls; the caller need not wait between two.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from ..model.account import Account
from ..model.application import Application
from ..model.circuit import Circuit
from ..model.content import ContentId, StagedBody
from ..model.notice import NoticedMessage
from ..model.queue import (
    Aside,
    AttemptRecord,
    DeliveryState,
    DueMessage,
    FencingToken,
    FlowId,
    LaneId,
    MessageId,
    NewMessage,
    PriorityClass,
)
from ..model.record import record
from ..model.suppression import SuppressionStore
from ..model.token import TokenStore
from ..model.usage import Usage
from ..pending import Pending
from ..policy.standstill import Standstill

T = TypeVar("T")

#: Where a walk over what waits on a lane has got to; the store's own.
Place = tuple[int, int, int, bytes, int]


@record
class Claim:
    """Deliveries of one message about to be written on one connection; `usage` counts although they are given back."""

    message_id: MessageId
    recipients: tuple[int, ...]
    lane: LaneId
    token: FencingToken
    usage: tuple[Usage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InHand:
    """What a lane has in memory, for a read that shall bring what it has not: deliveries, and how many of each class
    and flow. `whole`: it wants each message with all its deliveries that are due. Nothing more of what is `shut`."""

    deliveries: Set[tuple[MessageId, int]] = frozenset()
    counts: Mapping[tuple[PriorityClass, FlowId], int] = field(default_factory=dict)
    whole: bool = False
    shut: Set[tuple[PriorityClass, FlowId]] = frozenset()


@dataclass(frozen=True, slots=True)
class Due:
    """What may be claimed, by class, flow and age; there is `more` of these strands; `unseen` classes were not read."""

    messages: Sequence[DueMessage]
    more: frozenset[tuple[PriorityClass, FlowId]] = frozenset()
    unseen: frozenset[PriorityClass] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which deliveries a person means: one message (and one recipient of it), or all in `states` on `lane`.

    Empty `states` means every state from which the verb may move a delivery.
    """

    message_id: MessageId | None = None
    n: int | None = None
    lane: LaneId | None = None
    states: tuple[DeliveryState, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """What a list of deliveries shows; all given conditions hold. `after` is the last row of the page before.

    `recipient`, its `domain`, `sender` (the reverse-path) and `message_id` (ours, or that of the header) are matched
    exactly or from the beginning, without regard to case (of ASCII letters). `subject`: words that are all in it,
    or the beginning of one as in `inv*`; only where words of subjects are indexed. `since` and `until` (not included)
    are about when the message was accepted.
    """

    states: tuple[DeliveryState, ...] = ()
    lane: LaneId | None = None
    recipient: str = ""
    domain: str = ""
    sender: str = ""
    message_id: str = ""
    application: str = ""
    tag: str = ""
    subject: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    after: tuple[MessageId, int] | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow:
    """A delivery as lists show it, newest message first."""

    message_id: MessageId
    n: int
    recipient: str
    state: DeliveryState
    lane: LaneId
    priority: PriorityClass
    tries: int
    unknowns: int
    may_be_sent_twice: bool
    due: datetime | None
    window_from: datetime
    ended: datetime | None
    status: str
    reply: str
    reverse_path: str
    subject: str
    accepted: datetime
    size_bytes: int
    notify: str = ""
    orcpt: str = ""
    own_window: timedelta | None = None
    own_give_up: datetime | None = None
    application: str = ""
    tag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One attempt of one delivery; `transcript` is that of its transaction, kept with the first recipient alone."""

    n: int
    number: int
    account: str
    started: datetime
    ended: datetime
    outcome: str
    status: str
    reply: str
    command: str
    advice: str
    remote_host: str
    sent_to: str
    transcript: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """Something that happened: `kind` in small letters ("accepted", "delivered", "account.asleep")."""

    id: int
    at: datetime
    kind: str
    message_id: MessageId | None
    n: int | None
    account: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events: those behind the cursor `after`, or without one the newest; all given conditions hold. A kind is
    matched exactly, or is the first word of it: `account` is all of `account.asleep`, `account.edited`, ..."""

    after: int | None = None
    message_id: MessageId | None = None
    account: str = ""
    kinds: tuple[str, ...] = ()
    limit: int = 50


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, oldest first; `cursor` is behind all that was looked at, `at_end` when that was everything."""

    events: tuple[EventRow, ...]
    cursor: int
    at_end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageView:
    """Everything that is known of one message, its content apart. `connection` is one of its own: its `target`, and the
    fields that it overrides, without secrets."""

    id: MessageId
    door: str
    application: str
    reverse_path: str
    eight_bit: bool
    smtputf8: bool
    accepted: datetime
    subject: str
    header_message_id: str
    peer: str
    priority: PriorityClass
    size_bytes: int
    resubmits: MessageId | None
    deliveries: tuple[DeliveryRow, ...]
    attempts: tuple[AttemptRow, ...]
    events: tuple[EventRow, ...]
    ret: str = ""
    envid: str = ""
    tag: str = ""
    connection: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """Between these two times nothing is on record, or after `since` where `until` is None. Clocks jump: `since` may be
    the later."""

    since: datetime
    until: datetime | None = None


NOTHING_IN_HAND = InHand()


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneEnds:
    """When deliveries of one lane have waited too long.

    `window` is the lane's retry window, `began` tells when a window of a length began that is just over (some messages
    have windows of their own); what was accepted before `accepted_before` is given up. While the account `fails`, what
    was never tried ends by its window too.
    """

    lane: LaneId
    window: timedelta
    began: Callable[[timedelta], datetime]
    accepted_before: datetime
    fails: bool = False


@record
class WaitingDelivery:
    """A delivery that waits, or is held. `home` is the lane where it belongs, if that is another; `is_sure`: no relay
    can have it. `own_connection`: its message brought a connection."""

    message_id: MessageId
    n: int
    lane: LaneId
    home: LaneId | None
    recipient: str
    reverse_path: str
    application_id: int
    named: bool
    state: DeliveryState = DeliveryState.QUEUED
    is_sure: bool = True
    own_connection: bool = False


@record
class Diversion:
    """A delivery that moves from lane `origin` to `target`; `home` is where it belongs from then on, if elsewhere.
    `account` and `why` stand in its event."""

    message_id: MessageId
    n: int
    origin: LaneId
    target: LaneId
    home: LaneId | None
    account: str
    why: str


class QueueStore(Protocol):
    """What the queue asks of the store."""

    #: Called on the loop when a database that could not be reached is there again: what is due must be looked up anew.
    on_restored: list[Callable[[], None]]

    def stage(self, content_id: ContentId, index: int, chunk: bytes) -> asyncio.Future[None]:
        """Keep chunk `index` of content that no message owns yet; collected after an hour if none ever does."""

    def enqueue(self, message: NewMessage) -> Pending[Aside]:
        """Keep the message, its deliveries (`queued`, due at once, but for those that are told: `held` where
        the repeat guard says so, `bounced` where the suppression list does) and an `accepted` event. A staged body is
        checked: count, length and SHA-256 of its chunks; StorageFailed if they differ."""

    def claim(self, claim: Claim) -> Pending[tuple[int, ...]]:
        """Move deliveries that are still `queued` or `deferred` to `sending` under the token; the numbers moved."""

    def unclaim(self, claim: Claim) -> Pending[None]:
        """Give back what was claimed and of which nothing was written: to `queued`, due as before, uncounted."""

    def complete(self, attempt: AttemptRecord) -> Pending[None]:
        """Move each delivery out of `sending`, if it is still there under this token, and keep the attempt and an
        event per delivery whose state changed."""

    def recover(self, now: datetime) -> asyncio.Future[tuple[FencingToken, int]]:
        """Take a new fencing token; return to `deferred`, due now and marked "may be sent twice", what is `sending`
        under an older one; for limits it counts as sent now, or at the last send on record where that is later. The
        token and how many."""

    async def usage(self) -> Sequence[Usage]:
        """What limits have counted."""

    def count(self, rows: Sequence[Usage]) -> asyncio.Future[None]:
        """Add to what limits have counted: a send that is no delivery of a message."""

    async def repeats(self, application_id: int, most: int, now: int) -> bool:
        """Whether `most` or more messages of the application with the same recipient and body count at that time."""

    def forget_usage(self, before: int) -> asyncio.Future[int]:
        """Remove some of what limits and repeat guards counted and is worthless before that time; how many rows."""

    def hold(self, selection: Selection, now: datetime, why: str = "") -> asyncio.Future[int]:
        """`queued` and `deferred` to `held`; how many. `why` stands in the events."""

    def release(self, selection: Selection, now: datetime) -> asyncio.Future[int]:
        """`held` to `queued`, due now, with a new retry window; how many. Unknowns stay counted: what a relay may
        have is not sure for being released."""

    def retry(self, selection: Selection, now: datetime) -> asyncio.Future[int]:
        """`deferred` to `queued`, due now; how many."""

    def cancel(self, selection: Selection, now: datetime) -> asyncio.Future[int]:
        """`queued`, `deferred` and `held` to `cancelled`; how many."""

    def expire(self, ends: Sequence[LaneEnds], now: datetime) -> asyncio.Future[int]:
        """To `expired`: `deferred` whose retry window is over, and whatever has not ended (but is not `sending`) of
        messages that are too old; at most 1,000 at a time; how many."""

    def reap(self, ended_before: datetime, staged_before: datetime) -> asyncio.Future[int]:
        """Remove messages all of whose deliveries ended before the first time and of which nothing is to be reported,
        events of no message that are older, and chunks that no message owns staged before the second; at most 500
        messages at a time; how many rows of `message` went."""

    def reap_content(self, ended_before: datetime) -> asyncio.Future[int]:
        """Remove the content alone of such messages, at most 500 at a time; of how many."""

    def shrink(self) -> asyncio.Future[bool]:
        """Give a little of the room that nothing uses back to the file system; whether there is more of it."""

    def index(self, with_subjects: bool) -> asyncio.Future[bool]:
        """Bring what searches go by nearer to what is stored, in one small step: the words of subjects too, or out of
        the store again, as `with_subjects` says. Whether there is more to do."""

    async def noticed(self, noted_before: datetime) -> Sequence[NoticedMessage]:
        """Messages of which a report is due, some at a time: something was noted of them before the time, or is noted
        and all their deliveries have ended."""

    def report(
        self, noticed: NoticedMessage, message: NewMessage | None, kind: str = "", detail: str = ""
    ) -> asyncio.Future[bool]:
        """Keep the report `message` (None: nobody is told) and forget what it tells of, in one transaction, with an
        event `kind` on the message that it is about. False if it was told already: nothing is kept then."""

    def warn(self, accepted_before: datetime, now: datetime) -> asyncio.Future[int]:
        """Note the delay of what is under way (not held) of messages accepted before the time, once for each, in small
        steps; how many deliveries were noted."""

    def bring_back(self, now: datetime, by: timedelta | None, later_than: datetime) -> asyncio.Future[int]:
        """After a clock that was ahead: what waits and is due after `later_than` is due earlier `by` so much (not
        before now; None: now), and retry windows that would begin more than a day from now begin now; how many are
        due earlier."""

    async def last_silence(self, earliest: datetime, latest: datetime) -> Silence | None:
        """From the last thing on record that did not happen between the times to the first after it that did; None
        where nothing else is on record."""

    def keep_circuit(self, lane: LaneId, revision: int, circuit: Circuit) -> asyncio.Future[None]:
        """Keep how the account of `lane` is while it has this revision; of one that may send, nothing is kept."""

    async def standstills(self) -> Mapping[LaneId, Standstill]:
        """When retry windows of each lane stood still because its account was off or needed attention. Kept in the
        transactions of `save_account` and `keep_circuit`."""

    async def circuits(self) -> Mapping[LaneId, tuple[int, Circuit]]:
        """What `keep_circuit` kept: the account's revision then, and its circuit."""

    async def divertible(
        self, lane: LaneId, after: Place | None, limit: int
    ) -> tuple[Sequence[WaitingDelivery], Place | None]:
        """What waits on `lane` and may be moved to another, behind a place (None: from the start); and the place to go
        on from, None at the end."""

    async def away(self, home: LaneId, after: tuple[MessageId, int] | None, limit: int) -> Sequence[WaitingDelivery]:
        """What belongs to `home`, waits elsewhere and may be moved, in the order of message and recipient."""

    async def head(self, message_id: MessageId) -> bytes:
        """The stored head of a message; empty where it was removed."""

    def divert(self, diversions: Sequence[Diversion], now: datetime) -> asyncio.Future[int]:
        """Move deliveries that still wait where they were, and that no relay can have; how many."""

    async def selected(
        self, selection: Selection, after: Place | None, limit: int
    ) -> tuple[Sequence[WaitingDelivery], Place | None]:
        """What waits or is held, of one message or on one lane (whatever the states say), as `divertible`; also what a
        relay may have."""

    def reroute(self, diversions: Sequence[Diversion], now: datetime, *, even_unsure: bool) -> asyncio.Future[int]:
        """Move, by a person's hand, deliveries that still wait or are held where they were, what a relay may have only
        where `even_unsure`; what was deferred is queued, due now; retry windows begin now; how many."""

    def record(self, kind: str, *, account: str = "", detail: str = "") -> asyncio.Future[None]:
        """Keep an event that is not about one message."""

    async def due(self, lane: LaneId, now: datetime, limit: int, in_hand: InHand = NOTHING_IN_HAND) -> Due:
        """What may be claimed on `lane` now and is not in hand: about `limit` deliveries, urgent ones first, of each
        flow its share of the oldest, those of one message together."""

    async def next_due(self, lane: LaneId, classes: Sequence[PriorityClass], after: datetime) -> datetime | None:
        """When the first delivery of `lane` and these classes that waits and is due later than `after` is due."""

    async def waiting_since(self, lane: LaneId) -> datetime | None:
        """Since when the first delivery of an application that waits on `lane` has been due (or when it will be)."""

    def chunks(self, body: StagedBody) -> AsyncIterator[bytes]:
        """The chunks of a staged body in order, one in memory at a time."""


class ViewStore(Protocol):
    """What people look at."""

    async def deliveries(self, wanted: DeliveryFilter) -> Sequence[DeliveryRow]:
        """A page of deliveries, newest message first."""

    async def message(self, message_id: MessageId) -> MessageView | None:
        """One message with its deliveries, attempts and events."""

    async def content(self, message_id: MessageId) -> bytes | None:
        """The stored original, whole."""

    async def counts(self) -> dict[tuple[LaneId, DeliveryState], int]:
        """How many deliveries are in each state that has not ended, by lane; ended ones under their own states."""

    async def events(self, wanted: EventFilter) -> EventPage:
        """A page of events; it may be empty before the end where few match."""

    async def last_event(self) -> int:
        """The cursor behind all events."""


class DefinitionStore(Protocol):
    """Accounts, applications and stored settings. Secrets arrive sealed and leave sealed."""

    async def accounts(self) -> Sequence[Account]:
        """All accounts in list order; their secrets are opened by the keyring that the store was given."""

    async def applications(self) -> Sequence[Application]:
        """All applications by name."""

    async def settings(self) -> dict[str, str]:
        """Stored settings by name."""

    def save_account(self, account: Account) -> asyncio.Future[Account]:
        """Insert (id 0) or replace under the next revision; renumber positions; `InvalidInput` if the name is taken."""

    def save_accounts(self, given: Sequence[Account], order: Sequence[str], *own: Application) -> asyncio.Future[None]:
        """Save all of them and the applications `own`, or none; then accounts stand in the order of these names."""

    def remove_account(self, account_id: int) -> asyncio.Future[None]:
        """Remove; StateConflict while deliveries that have not ended wait for it."""

    def reseal(self) -> asyncio.Future[int]:
        """Seal all secrets anew under the first key, or none; of how many accounts. InvalidInput: one can't be read."""

    def save_application(self, application: Application) -> asyncio.Future[Application]:
        """Insert (id 0) or replace under the next revision; `InvalidInput` if the name is taken."""

    def save_setting(self, name: str, value: str | None) -> asyncio.Future[None]:
        """Store a setting, or forget it (None)."""

    def save_settings(self, values: Mapping[str, str | None], told: Sequence[str]) -> asyncio.Future[None]:
        """Store or forget (None) settings, with a `settings.changed` event for each of `told`; all of it or nothing."""

    def write(self, work: Callable[[Any], T]) -> asyncio.Future[T]:
        """Run `work` with the writer's SQLAlchemy connection in the group's transaction, under its own savepoint."""


class Store(QueueStore, ViewStore, DefinitionStore, Protocol):
    """The whole store."""

    suppressions: SuppressionStore
    tokens: TokenStore

    async def close(self) -> None:
        """Finish what was submitted, checkpoint and close."""
