"""Lanes, one per account, and the verbs that people and doors use on the queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from ..model.account import Account
from ..model.circuit import Circuit
from ..model.clock import Clock
from ..model.queue import DueMessage, FencingToken, LaneId
from ..store import QueueStore, Selection
from ..transports import Transport
from .beats import Beats
from .circuit import asleep_by_hand
from .fallback import Directory, Diverter
from .lane import Lane
from .limiter import Limiter
from .rules import LaneRules


class Scheduler:
    """Owns every lane of this node and keeps them in step with the accounts."""

    def __init__(
        self,
        store: QueueStore,
        clock: Clock,
        rules: LaneRules,
        make_transport: Callable[[Account], Transport],
        random: Callable[[], float],
        directory: Directory,
    ) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules
        self._make_transport = make_transport
        self._random = random
        self._lanes: dict[LaneId, Lane] = {}
        self._token: FencingToken | None = None
        self._paused = False
        self.beats = Beats(clock, self._beat)
        self._kept: dict[LaneId, Circuit] = {}  # how accounts were when nothing was sent here
        self.limiter = Limiter(store, clock)
        self.diverter = Diverter(store, clock, lambda: self._lanes, directory)
        self._diverting: asyncio.Task[None] | None = None
        self._off_since: dict[LaneId, datetime] = {}

    async def load(self, accounts: Sequence[Account]) -> None:
        """Read what was counted, and how accounts were that could not send; what was edited since is well."""
        await self.limiter.load()
        found = await self._store.circuits()
        revisions = {LaneId(account.id): account.revision for account in accounts}
        self._kept = {lane: circuit for lane, (revision, circuit) in found.items() if revisions.get(lane) == revision}

    async def start(self, accounts: Sequence[Account], *, paused: bool, hold_pending: bool) -> int:
        """Take a new token, recover what a crash left, open the lanes; how many deliveries were recovered.

        With `hold_pending`, everything that waits is held before any lane may claim it.
        """
        now = self._clock.now()
        self._token, recovered = await self._store.recover(now)
        if hold_pending:
            await self._store.hold(Selection(), now, "it waited when the gateway started (hold_pending_at_start)")
        self._paused = paused
        await self.load(accounts)
        standstills = await self._store.standstills()
        self._off_since = {lane: found.pauses[-1][0] for lane, found in standstills.items() if found.is_on}
        self.follow(accounts)
        self._diverting = asyncio.create_task(self.diverter.run(), name="fallback")
        self.diverter.look()
        return recovered

    async def stop(self) -> None:
        """End every lane."""
        self.beats.stop()
        if self._diverting is not None:
            self._diverting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._diverting
        lanes, self._lanes = list(self._lanes.values()), {}
        self._token = None
        for lane in lanes:
            lane.cease()
        await asyncio.gather(*(lane.stop() for lane in lanes))

    def follow(self, accounts: Sequence[Account]) -> None:
        """Lanes as the accounts are now: new ones open, changed ones change, removed ones end."""
        if self._token is None:
            return
        self.limiter.follow(accounts)
        wanted = {LaneId(account.id): account for account in accounts}
        for lane_id in [lane_id for lane_id in self._lanes if lane_id not in wanted]:
            self._lanes.pop(lane_id).retire()
        for lane_id, account in wanted.items():
            lane = self._lanes.get(lane_id)
            if lane is not None:
                lane.change(account)
                continue
            lane = Lane(
                account,
                store=self._store,
                clock=self._clock,
                token=self._token,
                rules=self._rules,
                make_transport=self._make_transport,
                random=self._random,
                kept=self._kept.pop(lane_id, None),
                limiter=self.limiter,
                successors=self.diverter,
                off_since=self._off_since.pop(lane_id, None),
            )
            self._lanes[lane_id] = lane
            lane.pause(self._paused)
            lane.beat(self.beats.last)

    def offer(self, message: DueMessage) -> None:
        """A message that has just become durable."""
        lane = self._lanes.get(message.lane)
        if lane is not None:
            lane.offer(message)

    def look(self) -> None:
        """Deliveries may have become due by a person's hand."""
        for lane in self._lanes.values():
            lane.look()

    def clock_jumped(self) -> None:
        """The time of day is another: what is due when is looked up anew."""
        for lane in self._lanes.values():
            lane.clock_jumped()

    def pause(self, paused: bool) -> None:
        """The master switch."""
        self._paused = paused
        for lane in self._lanes.values():
            lane.pause(paused)

    def batch(self, interval: timedelta) -> None:
        """Send every `interval` what is due then; zero: as soon as it is due."""
        if interval != self.beats.interval:
            self.beats.every(interval)

    def _beat(self, at: datetime | None) -> None:
        for lane in self._lanes.values():
            lane.beat(at)

    def change_rules(self, rules: LaneRules) -> None:
        """What outcomes and failures lead to from now on."""
        self._rules = rules
        for lane in self._lanes.values():
            lane.follow(rules)

    def renew_transports(self) -> None:
        """What connections are made with has changed; those in use end what they do."""
        for lane in self._lanes.values():
            lane.renew()

    async def put_to_sleep(self, account: Account, pause: timedelta) -> Circuit:
        """Let an account sleep so long, by hand; how it is then."""
        lane_id = LaneId(account.id)
        if (lane := self._lanes.get(lane_id)) is not None:
            lane.breaker.put_to_sleep(pause)
        else:
            now = self._clock.now()
            await self._keep(account, asleep_by_hand(now, pause), "account.asleep", f"{pause.total_seconds():g}s")
        return self.circuit(lane_id)

    async def wake(self, account: Account) -> Circuit:
        """End an account's sleep, or its need of attention, by hand; how it is then."""
        lane_id = LaneId(account.id)
        if (lane := self._lanes.get(lane_id)) is not None:
            lane.breaker.wake_up(by_hand=True)
        elif lane_id in self._kept:
            await self._keep(account, Circuit(since=self._clock.now()), "account.awake", "")
        return self.circuit(lane_id)

    async def _keep(self, account: Account, circuit: Circuit, kind: str, detail: str) -> None:
        lane_id = LaneId(account.id)
        kept = self._store.keep_circuit(lane_id, account.revision, circuit)
        await self._store.record(kind, account=account.name, detail=detail)
        await kept
        self._kept[lane_id] = circuit
        self._rules.circuit_changed()

    def lane(self, lane: LaneId) -> Lane | None:
        """A lane that is open here."""
        return self._lanes.get(lane)

    def circuit(self, lane: LaneId) -> Circuit:
        """How the account of `lane` is, or was when something was last sent here."""
        found = self._lanes.get(lane)
        return found.circuit if found is not None else self._kept.get(lane, Circuit())

    def ended(self) -> dict[LaneId, tuple[int, int]]:
        """How many deliveries of each lane were delivered, and bounced, since the start."""
        return {lane_id: (lane.delivered, lane.bounced) for lane_id, lane in self._lanes.items()}

    @property
    def is_running(self) -> bool:
        """Whether lanes are open here."""
        return self._token is not None
