"""Brings what is due on a lane from the store into memory, in the shares of its flows, before it is missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from ..model.clock import Clock, Timer
from ..model.queue import DueMessage, LaneId, MessageId, PriorityClass
from ..store import QueueStore
from .ready import Ready, Strand

#: Deliveries loaded from the store at a time.
LOAD_LIMIT = 200

#: How long is waited when the store refuses a read.
STORE_PATIENCE = 1.0


class Loader:
    """Fills `ready`. `changed` is called when something was loaded, or may be by `load`.

    A strand (a flow of a class) is *cold* while the store may hold due deliveries of it that are not in memory: they
    go before what comes later. A class is *unseen* while that is not known of any of its flows.
    """

    def __init__(
        self, ready: Ready, store: QueueStore, clock: Clock, lane: LaneId, changed: Callable[[], None]
    ) -> None:
        self._ready = ready
        self._store = store
        self._clock = clock
        self._lane = lane
        self._changed = changed
        self._cold: set[Strand] = set()
        self._unseen = set(PriorityClass)
        self._task: asyncio.Task[None] | None = None
        # While the store is read: of what older ones may come, and what was offered meanwhile, of these and of others.
        self._read_strands: set[Strand] = set()
        self._read_classes: set[PriorityClass] = set()
        self._arrived: list[DueMessage] = []
        self._meanwhile: set[MessageId] = set()
        self._look_again = False
        self._is_stale = False  # what is being read may have changed since
        self._timer: Timer | None = None
        self._timer_at: datetime | None = None
        self._beat: datetime | None = None  # with a batch interval: what is due later waits for the next one
        self._stopped = False

    def offer(self, message: DueMessage) -> None:
        """A message that has just become durable, with its content."""
        if self._beat is not None:
            return  # the next beat finds it in the store
        priority = message.priority
        strand = (priority, message.flow)
        if priority in self._unseen or strand in self._cold or not self._ready.has_room_for(message):
            self._cold.add(strand)  # first come, first served: what is in the store goes before it
        elif self._task is not None and (priority in self._read_classes or strand in self._read_strands):
            self._arrived.append(message)
        elif not self._ready.has(message):
            if self._task is not None:
                self._meanwhile.add(message.id)  # the read may bring it too, as it was then
            self._ready.add(message)

    def look(self) -> None:
        """The store may hold more that is due: after a release, a retry, or when a time has come."""
        self.forget()
        self._look_again = self._task is not None
        self._changed()

    def discard(self) -> None:
        """What is in memory, or being read, may be otherwise in the store now."""
        self._ready.clear()
        self._arrived.clear()
        self._is_stale = True
        self.look()

    def beat(self, at: datetime | None) -> None:
        """Bring what is due then, and no more until the next beat; None: everything as soon as it is due."""
        self._beat = at
        self.look()

    def forget(self) -> None:
        """What the store holds is not known any more."""
        self._unseen = set(PriorityClass)

    @property
    def is_due(self) -> bool:
        """Whether `load` should be called: little is ready, or a turn would be missed."""
        if not (self._unseen or self._cold) or self._task is not None:
            return False
        if not self._unseen and all(map(self._ready.is_shut, self._cold)):
            return False
        if self._ready.runs_low:
            return True
        if not self._ready.may_go and not self._ready.is_full(PriorityClass.BULK):
            return True  # what there is has to wait; something else may go
        if self._unseen and min(self._unseen) < self._ready.foremost:
            return True
        return any(not self._ready.waits(strand) for strand in self._cold)

    def load(self) -> None:
        """Read from the store."""
        if self._task is None and not self._stopped:
            self._task = asyncio.create_task(self._load(), name=f"load lane {self._lane}")
            self._task.add_done_callback(self._loaded)

    async def _load(self) -> None:
        self._read_strands, self._read_classes = self._cold, self._unseen
        self._cold, self._unseen = set(), set()
        self._meanwhile = set()
        self._is_stale = False
        beat = self._beat
        now = beat or self._clock.now()
        due = await self._store.due(self._lane, now, LOAD_LIMIT, self._ready.in_hand())
        for message in () if self._is_stale else due.messages:
            if message.id not in self._meanwhile:
                self._ready.add(message)
        self._cold |= due.more
        self._unseen |= due.unseen
        if beat is not None:
            return  # the next beat looks again
        read = [priority for priority in PriorityClass if priority not in due.unseen]
        later = await self._store.next_due(self._lane, read, now)
        if later is not None:
            self.look_at(later)

    def _loaded(self, task: asyncio.Task[None]) -> None:
        self._task = None
        arrived, self._arrived = self._arrived, []
        for message in arrived:
            self.offer(message)
        if not task.cancelled() and task.exception() is not None:
            self.forget()
            if not self._stopped:
                self._clock.call_later(STORE_PATIENCE, self.look)
            return
        if self._look_again:
            self._look_again = False
            self.forget()
        self._changed()

    def look_at(self, due: datetime) -> None:
        """Look into the store at `due`, unless an earlier look is planned."""
        if self._beat is not None and due > self._beat:
            return
        seconds = (due - self._clock.now()).total_seconds()
        if seconds <= 0:
            self.look()
            return
        if self._timer_at is not None and self._timer_at <= due:
            return
        self.forget_times()
        if not self._stopped:
            self._timer_at = due
            self._timer = self._clock.call_later(seconds, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer = self._timer_at = None
        self.look()

    def forget_times(self) -> None:
        """When to look next is not known any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timer_at = None

    def stop(self) -> None:
        """Read nothing more."""
        self._stopped = True
        self.forget_times()
        if self._task is not None:
            self._task.cancel()
