"""Moves mail to another account by a person's hand: to one that is named, or by the routes as they are today.

What a relay may have already (a try that was never answered, a crash) is moved only where the person accepts that it
may arrive twice. A claim that came first wins: what is being sent is left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from ..errors import Refused
from ..mime.head import scan
from ..model.account import Account, AccountKind
from ..model.application import Application
from ..model.clock import Clock
from ..model.queue import LaneId, MessageId
from ..policy.patterns import matches_any, parse_patterns
from ..policy.routing import RoutingTable, may_use
from ..store import Diversion, Place, QueueStore, Selection, WaitingDelivery
from .fallback import Directory
from .intake import senders_of
from .lane import Lane

#: Deliveries looked at in one step.
STEP = 500

MAY_HAVE_IT = "a relay may have it already, and it may arrive twice: --may-duplicate moves it all the same"
NAMES_ITS_ACCOUNT = "its message named its account: --to NAME moves it"
BRINGS_ITS_CONNECTION = "its message brought a connection for its account: --to NAME moves it to one that takes it too"
NO_APPLICATION = "its application is gone, or it is a report: --to NAME moves it"
IS_THERE = "it is where it belongs"
TOO_LATE = "it was claimed, or moved by somebody else, meanwhile"


@dataclass(frozen=True, slots=True)
class Rerouted:
    """How many deliveries were moved, by account; and how many were not, by reason."""

    moved: Mapping[str, int]
    left: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Covering:
    """Patterns that cover reverse-path and recipient of what is moved; none: all."""

    senders: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()

    @classmethod
    def read(cls, senders: str, recipients: str) -> Covering:
        """Patterns as in routing.

        Raises:
            InvalidInput: one of them is no pattern.
        """
        return cls(parse_patterns(senders, "senders"), parse_patterns(recipients, "recipients"))

    def covers(self, one: WaitingDelivery) -> bool:
        """Whether both are covered."""
        if self.senders and not matches_any(self.senders, one.reverse_path):
            return False
        return not self.recipients or matches_any(self.recipients, one.recipient)


ALL = Covering()


@dataclass(frozen=True, slots=True)
class _Order:
    """What shall be moved where, and what came of it."""

    table: RoutingTable
    selection: Selection
    to: Account | None
    may_duplicate: bool
    covering: Covering
    moved: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    ahead: set[LaneId] = field(default_factory=set)  # lanes that were not walked yet
    met: set[tuple[MessageId, int]] = field(default_factory=set)  # what was moved to one of these

    def parts(self) -> Iterator[Selection]:
        """The selection, lane by lane where it is of no message."""
        if self.selection.message_id is not None or self.selection.lane is not None:
            yield self.selection
            return
        # Where all goes is walked first: then nothing has to be remembered.
        accounts = sorted(self.table.accounts, key=lambda account: self.to is None or account.id != self.to.id)
        lanes = [LaneId(account.id) for account in accounts]
        self.ahead.update(lanes)
        for lane in lanes:
            self.ahead.discard(lane)
            yield replace(self.selection, lane=lane)


class Rerouter:
    """Moves what is selected; `lane_of` finds lanes that are open here."""

    def __init__(
        self, store: QueueStore, clock: Clock, directory: Directory, lane_of: Callable[[LaneId], Lane | None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._directory = directory
        self._lane_of = lane_of

    async def reroute(
        self, selection: Selection, to: Account | None, *, may_duplicate: bool, covering: Covering = ALL
    ) -> Rerouted:
        """Move deliveries of a message, of a lane, or all, to the account `to`, or by the routes of today."""
        order = _Order(self._directory.routes(), selection, to, may_duplicate, covering)
        for part in order.parts():
            place: Place | None = None
            more = True
            while more:
                found, place = await self._store.selected(part, place, STEP)
                await self._move(found, order)
                more = place is not None
        return Rerouted(dict(order.moved), dict(order.left))

    async def _move(self, found: Sequence[WaitingDelivery], order: _Order) -> None:
        diversions: dict[str, list[Diversion]] = {}
        states = order.selection.states
        for one in found:
            if (states and one.state not in states) or not order.covering.covers(one):
                continue
            if (one.message_id, one.n) in order.met:
                continue
            target = await self._target(one, order)
            if isinstance(target, str):
                order.left[target] += 1
                continue
            origin = order.table.by_id(one.lane)
            why = f"from {origin.name if origin is not None else 'an account that is gone'}, by hand"
            diversions.setdefault(target.name, []).append(
                Diversion(one.message_id, one.n, one.lane, LaneId(target.id), None, target.name, why)
            )
        for name, group in diversions.items():
            order.met.update((one.message_id, one.n) for one in group if one.target in order.ahead)
            self._forget({one.target for one in group})
            count = await self._store.reroute(group, self._clock.now(), even_unsure=order.may_duplicate)
            order.moved[name] += count
            if count < len(group):
                order.left[TOO_LATE] += len(group) - count
            self._forget({one.origin for one in group})
            self._look({one.target for one in group})

    async def _target(self, one: WaitingDelivery, order: _Order) -> Account | str:
        """Where it goes; or why it stays."""
        if order.to is not None:
            target = self._named(order.to, one)
            belongs = one.lane if one.home is None else None
        else:
            target = await self._routed(order.table, one)
            belongs = one.home or one.lane
        if isinstance(target, str):
            return target
        if target.id == belongs:
            return IS_THERE
        return target if one.is_sure or order.may_duplicate else MAY_HAVE_IT

    def _forget(self, lanes: Set[LaneId]) -> None:
        """What comes may have been there before: lanes that still have it in memory don't know what was tried since."""
        for number in lanes:
            if (lane := self._lane_of(number)) is not None:
                lane.forget()

    def _look(self, lanes: Set[LaneId]) -> None:
        for number in lanes:
            if (lane := self._lane_of(number)) is not None:
                lane.look()

    def _named(self, to: Account, one: WaitingDelivery) -> Account | str:
        """The account, unless the application was not given it."""
        application = self._directory.application(one.application_id)
        if application is not None and not may_use(application, to):
            return f"application {application.name} was not given account {to.name}"
        if one.own_connection and not (to.dynamic and to.kind is AccountKind.SMTP):
            return f"its message brought a connection of its own, which account {to.name} does not take (dynamic)"
        return to

    async def _routed(self, table: RoutingTable, one: WaitingDelivery) -> Account | str:
        """Where it would go if it came today."""
        if one.named:
            return BRINGS_ITS_CONNECTION if one.own_connection else NAMES_ITS_ACCOUNT
        application: Application | None = self._directory.application(one.application_id)
        if application is None:
            return NO_APPLICATION
        senders: Sequence[str] = (one.reverse_path,)
        if table.asks_for_sender:
            senders = senders_of(one.reverse_path, scan(await self._store.head(one.message_id)))
        try:
            return table.route(application, senders, one.recipient)
        except Refused as error:
            return str(error)
