"""What the store should be: a queue of dictionaries, moved by the table of transitions alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from postroom.model.notice import NoticeKind, is_asked
from postroom.model.queue import FINAL, TRANSITIONS, WAITING, DeliveryResult, DeliveryState, NewMessage

S = DeliveryState
MADE_BY = {"hold": "hold", "release": "release", "retry": "retry now", "cancel": "cancel"}


@dataclass
class ModelDelivery:
    """One delivery, as lists show it; `token` is that of its claim."""

    due: datetime | None
    window_from: datetime
    notify: str
    state: DeliveryState = S.QUEUED
    token: int = 0
    tries: int = 0
    unknowns: int = 0
    twice: bool = False
    ended: datetime | None = None

    @property
    def shown(self) -> tuple[object, ...]:
        """What can be seen of it."""
        return (
            self.state, self.due, self.window_from, self.tries, self.unknowns, self.twice, self.ended, self.notify,
        )  # fmt: skip


Key = tuple[bytes, int]


@dataclass
class Model:
    """The queue: messages in the order of their ids, deliveries by message and number, and what is noted of them."""

    messages: list[NewMessage] = field(default_factory=list)
    deliveries: dict[Key, ModelDelivery] = field(default_factory=dict)
    notices: dict[tuple[bytes, int, str], datetime] = field(default_factory=dict)
    token: int = 0  # under which claims count; none does until a process has recovered
    last_token: int = 0
    warned_up_to: int = 0

    def copy(self) -> Model:
        """As it is now."""
        return copy.deepcopy(self)

    def of(self, message: NewMessage) -> list[tuple[Key, ModelDelivery]]:
        """The deliveries of a message that has not been removed."""
        return [(key, one) for key, one in self.deliveries.items() if key[0] == message.id]

    @property
    def shown(self) -> tuple[object, ...]:
        """What can be seen of all of it."""
        return (
            {key: one.shown for key, one in self.deliveries.items()},
            {message: sorted(self.noted(message)) for message, _, _ in self.notices},
            self.last_token,
        )

    def noted(self, message: bytes) -> list[tuple[int, str]]:
        """What is noted of one message."""
        return [(n, kind) for of, n, kind in self.notices if of == message]

    # Verbs ------------------------------------------------------------------------------------------------------------

    def enqueue(self, message: NewMessage) -> None:
        """A message is kept."""
        self.messages.append(message)
        dsn = message.envelope.dsn
        for n in range(len(message.deliveries)):
            asked = dsn.notify[n] if dsn is not None else ""
            self.deliveries[message.id, n] = ModelDelivery(message.accepted, message.accepted, asked)

    def claim(self, message: NewMessage, numbers: Sequence[int], token: int) -> tuple[int, ...]:
        """The numbers that a claim gets."""
        got = []
        for n in numbers:
            one = self.deliveries.get((message.id, n))
            if one is not None and token == self.token and one.state in WAITING:
                one.state, one.token = S.SENDING, token
                got.append(n)
        return tuple(got)

    def unclaim(self, message: NewMessage, numbers: Sequence[int], token: int) -> None:
        """Back, for those held under the token."""
        for n in numbers:
            one = self.deliveries.get((message.id, n))
            if one is not None and one.state is S.SENDING and one.token == token:
                one.state = S.QUEUED

    def complete(self, message: NewMessage, results: Sequence[DeliveryResult], token: int, now: datetime) -> None:
        """Out of `sending`, for those held under the token, with what is noted."""
        for result in results:
            one = self.deliveries.get((message.id, result.n))
            if one is None or one.state is not S.SENDING or one.token != token:
                continue
            one.state, one.due = result.state, result.due
            one.tries += result.counts
            one.unknowns += result.unknown
            one.ended = now if result.state in FINAL else None
            if result.notice:
                self.notices[message.id, result.n, result.notice] = now

    def move(self, verb: str, message: NewMessage, n: int | None, now: datetime) -> int:
        """A person's verb; how many it moved."""
        moved = 0
        for (_, number), one in self.of(message):
            after = next(
                (
                    to
                    for (before, to), who in TRANSITIONS.items()
                    if who.split(",")[0] == MADE_BY[verb] and before is one.state
                ),
                None,
            )
            if after is None or n not in (None, number):
                continue
            moved += 1
            one.state = after
            one.due = now if after is S.QUEUED else None
            one.ended = now if after in FINAL else None
            if verb == "release":
                one.window_from = now
        return moved

    def recover(self, now: datetime) -> tuple[int, int]:
        """A new token, and how many were being sent."""
        lost = [one for one in self.deliveries.values() if one.state is S.SENDING]
        for one in lost:
            one.state, one.due, one.twice = S.DEFERRED, now, True
        self.last_token += 1
        self.token = self.last_token
        return self.token, len(lost)

    def expire(self, window_began_before: datetime, accepted_before: datetime, now: datetime) -> int:
        """Ends what waited too long; how many."""
        ended = 0
        for message in self.messages:
            for key, one in self.of(message):
                is_old = message.accepted < accepted_before and one.state in (S.QUEUED, S.DEFERRED, S.HELD)
                if is_old or (one.state is S.DEFERRED and one.window_from < window_began_before):
                    one.state, one.due, one.ended = S.EXPIRED, None, now
                    self._note(message, key[1], one, NoticeKind.FAILED, now)
                    ended += 1
        return ended

    def warn(self, accepted_before: int, now: datetime) -> int:
        """Notes delays of messages not looked at before; how many. `accepted_before` counts them from the first."""
        noted = len(self.notices)
        for message in self.messages[self.warned_up_to : accepted_before]:
            for key, one in self.of(message):
                if one.state in (S.QUEUED, S.DEFERRED, S.SENDING):
                    self._note(message, key[1], one, NoticeKind.DELAYED, now)
        self.warned_up_to = max(self.warned_up_to, accepted_before)
        return len(self.notices) - noted

    def _note(self, message: NewMessage, n: int, one: ModelDelivery, kind: NoticeKind, now: datetime) -> None:
        if message.envelope.reverse_path and is_asked(kind, one.notify):
            self.notices.setdefault((message.id, n, kind.value), now)

    def due_for_report(self, noted_before: datetime) -> list[bytes]:
        """Messages of which a report is due."""
        found = []
        for message in sorted({key[0] for key in self.notices}):
            first = min(at for (of, _, _), at in self.notices.items() if of == message)
            has_ended = all(one.ended is not None for key, one in self.deliveries.items() if key[0] == message)
            if first <= noted_before or has_ended:
                found.append(message)
        return found

    def report(self, told: Sequence[tuple[bytes, int, str]], message: NewMessage | None) -> bool:
        """A report instead of what it tells; whether anything of that was still there."""
        there = [key for key in told if key in self.notices]
        for key in there:
            del self.notices[key]
        if there and message is not None:
            self.enqueue(message)
        return bool(there)

    def reap(self, ended_before: datetime) -> int:
        """Removes what ended before and is reported; how many messages."""
        gone = [
            message
            for message in self.messages
            if self.of(message)
            and all(one.ended is not None and one.ended < ended_before for _, one in self.of(message))
            and not self.noted(message.id)
        ]
        for message in gone:
            for key, _ in self.of(message):
                del self.deliveries[key]
        return len(gone)

    def crash(self) -> None:
        """The process is gone: nobody's claim counts any more."""
        self.token = 0


def as_completed(message: NewMessage, result: DeliveryResult, notify: str) -> DeliveryResult:
    """`result` with the notice that the queue would write."""
    kinds = {S.BOUNCED: NoticeKind.FAILED, S.EXPIRED: NoticeKind.FAILED, S.DELIVERED: NoticeKind.RELAYED}
    kind = kinds.get(result.state)
    is_told = kind is not None and message.envelope.reverse_path and is_asked(kind, notify)
    return replace(result, notice=kind.value if kind is not None and is_told else "")
