"""Moves mail to another account while its own can't send, and back when it is well (SPEC section 2.8).

Nothing that a relay may have is moved: the store moves only what waits, with no unanswered try and no mark of a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from ..errors import GatewayError
from ..mime.head import scan
from ..model.account import Account, AccountKind, Fallback
from ..model.application import Application
from ..model.clock import Clock, Timer
from ..model.limits import WhenLimited
from ..model.queue import DueDelivery, DueMessage, LaneId, MessageId, application_of
from ..policy.fallback import successor
from ..policy.routing import RoutingTable
from ..store import Claim, Diversion, Place, QueueStore, WaitingDelivery
from .intake import senders_of
from .lane import Lane

_log = structlog.get_logger()

#: Deliveries looked at in one step.
STEP = 500

#: Between two looks while something changes all the time, and when the store refuses.
PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Directory:
    """What there is now: the routes, and applications by number."""

    routes: Callable[[], RoutingTable]
    application: Callable[[int], Application | None]


class Diverter:
    """Looks after what waits on accounts that can't send; `lanes` are those that are open now."""

    def __init__(
        self,
        store: QueueStore,
        clock: Clock,
        lanes: Callable[[], Mapping[LaneId, Lane]],
        directory: Directory,
    ) -> None:
        self._store = store
        self._clock = clock
        self._lanes = lanes
        self._routes = directory.routes
        self._application = directory.application
        self._changed = asyncio.Event()
        self._timer: Timer | None = None
        self._were_out: set[LaneId] = set()
        self._senders: dict[MessageId, tuple[str, ...]] = {}
        self._moving: set[asyncio.Future[int]] = set()

    def look(self) -> None:
        """Something has changed that may move mail."""
        self._changed.set()

    async def run(self) -> None:
        """Move mail until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.turn()
            except GatewayError as error:
                _log.warning("fallback_failed", reason=str(error))
                self._look_in(PAUSE)

    async def turn(self) -> int:
        """Move what shall move now; how many deliveries."""
        moved = 0
        lanes = self._lanes()
        out = {lane_id for lane_id, lane in lanes.items() if self._is_out(lane)}
        for lane_id in out:
            moved += await self._send_away(lanes[lane_id])
        for lane_id in [lane_id for lane_id in self._were_out - out if lane_id in lanes]:
            lane = lanes[lane_id]
            if lane.can_send and lane.failing_since is None and not lane.is_limited:
                moved += await self._bring_home(lane)
                self._were_out.discard(lane_id)
        self._were_out |= out
        self._plan(lanes)
        return moved

    def refused(self, account: Account, message: DueMessage, delivery: DueDelivery) -> Account | None:
        """See `Successors.refused`."""
        application = self._application(application_of(message.flow))
        if application is None or message.named:
            return None
        table = self._routes()
        senders: Sequence[str] = (message.reverse_path,)
        if table.asks_for_sender:
            senders = senders_of(message.reverse_path, scan(message.content.head))
        return successor(table, account, application, senders, delivery.recipient, self._can_take)

    def take(self, account: Account, claim: Claim, taken: Mapping[int, Account]) -> None:
        """See `Successors.take`. They do not come back: the account would refuse them again."""
        why = f"{account.name} refuses this sender"
        diversions = [
            Diversion(claim.message_id, n, claim.lane, LaneId(target.id), None, target.name, why)
            for n, target in taken.items()
        ]
        self._moving.add(task := asyncio.ensure_future(self._divert(diversions)))
        task.add_done_callback(self._taken)

    def _taken(self, task: asyncio.Future[int]) -> None:
        self._moving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # They wait on their account, are refused again and taken then.
            _log.warning("fallback_failed", reason=str(error))

    # What is out -------------------------------------------------------------------------------------------------

    def _is_out(self, lane: Lane) -> bool:
        account = lane.account
        if account.kind is AccountKind.SANDBOX:
            return False
        if account.when_limited is WhenLimited.OVERFLOW and lane.is_limited:
            return True
        if account.fallback is Fallback.NONE or lane.failing_since is None or lane.can_send:
            return False
        return self._clock.now() >= lane.failing_since + account.fall_back_after

    def _can_take(self, account: Account) -> bool:
        lane = self._lanes().get(LaneId(account.id))
        return lane is not None and lane.can_send and not lane.is_limited

    def _plan(self, lanes: Mapping[LaneId, Lane]) -> None:
        """Look again when the next account will have failed for long enough."""
        now = self._clock.now()
        times = [
            lane.failing_since + lane.account.fall_back_after
            for lane in lanes.values()
            if lane.failing_since is not None and lane.account.fallback is not Fallback.NONE
        ]
        later = [at for at in times if at > now]
        if later:
            self._look_in((min(later) - now).total_seconds())

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(seconds, self.look)

    # Away and home -----------------------------------------------------------------------------------------------

    async def _send_away(self, lane: Lane) -> int:
        moved, why = 0, lane.why_out
        place: Place | None = None
        more = True
        while more:
            found, place = await self._store.divertible(LaneId(lane.account.id), place, STEP)
            diversions = [one async for one in self._away(lane, found, why)]
            moved += await self._divert(diversions)
            more = place is not None
        if moved:
            lane.forget()
            _log.warning("fell_back", account=lane.account.name, deliveries=moved, reason=why)
            await self._store.record("account.fell_back", account=lane.account.name, detail=f"{moved}: {why}")
        return moved

    async def _away(self, lane: Lane, found: Sequence[WaitingDelivery], why: str) -> AsyncIterator[Diversion]:
        table = self._routes()
        for one in found:
            application = self._application(one.application_id)
            if application is None or one.named:
                continue
            senders = await self._senders_of(table, one)
            home = one.home or one.lane
            belongs = table.by_id(home) or lane.account
            if home != one.lane and self._can_take(belongs):
                target: Account | None = belongs
            else:
                target = successor(table, belongs, application, senders, one.recipient, self._can_take)
            if target is not None and target.id != one.lane:
                # What overflows stays where it went; what fell back comes home.
                stays = target.id == home or (lane.is_limited and lane.can_send)
                yield Diversion(
                    one.message_id, one.n, one.lane, LaneId(target.id), None if stays else home, target.name,
                    f"from {lane.account.name}: {why}",
                )  # fmt: skip
        self._senders.clear()

    async def _bring_home(self, lane: Lane) -> int:
        moved = 0
        after: tuple[MessageId, int] | None = None
        home = LaneId(lane.account.id)
        while found := await self._store.away(home, after, STEP):
            after = (found[-1].message_id, found[-1].n)
            why = f"{lane.account.name} is well again"
            moved += await self._divert(
                [Diversion(one.message_id, one.n, one.lane, home, None, lane.account.name, why) for one in found]
            )
        if moved:
            _log.info("came_home", account=lane.account.name, deliveries=moved)
            await self._store.record("account.came_home", account=lane.account.name, detail=str(moved))
        return moved

    async def _divert(self, diversions: Sequence[Diversion]) -> int:
        if not diversions:
            return 0
        moved = await self._store.divert(diversions, self._clock.now())
        lanes = self._lanes()
        for lane_id in {one.target for one in diversions} & lanes.keys():
            lanes[lane_id].look()
        return moved

    async def _senders_of(self, table: RoutingTable, one: WaitingDelivery) -> tuple[str, ...]:
        if not table.asks_for_sender:
            return (one.reverse_path,)
        senders = self._senders.get(one.message_id)
        if senders is None:
            senders = senders_of(one.reverse_path, scan(await self._store.head(one.message_id)))
            self._senders[one.message_id] = senders
        return senders
