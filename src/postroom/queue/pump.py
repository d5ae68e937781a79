"""Gives what is ready on a lane to its transport, one message after the other, while the lane may send."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from ..model.outcome import Deferred
from ..model.queue import DueMessage
from ..transports import AccountUnavailable, Slot, Transport, TransportClosed
from .ready import Ready


class Pumped(Protocol):
    """What a pump asks of its lane."""

    @property
    def transport(self) -> Transport:
        """The way out, as the account is now."""

    @property
    def may_send(self) -> bool:
        """Whether claims are allowed now."""

    @property
    def pause_seconds(self) -> float:
        """How long the lane waits before the next message, where it goes slower."""

    def wake(self) -> None:
        """Something may be ready: load it, or work."""

    def room(self) -> int:
        """For how many recipients a message may start now."""

    def wait_for_room(self) -> None:
        """Work again when there is room."""

    def wait(self, seconds: float) -> None:
        """Work again after a pause."""

    def fail(self, failure: Deferred, *, connecting: bool) -> None:
        """The account failed."""

    def send(self, slot: Slot, message: DueMessage) -> None:
        """Claim and send."""


class Pump:
    """Takes from `ready`, and waits for slots by `reserve`; works once `work` is set."""

    def __init__(self, lane: Pumped, ready: Ready, reserve: Callable[[Transport], Awaitable[Slot]], name: str) -> None:
        self._lane = lane
        self._ready = ready
        self._reserve = reserve
        self.work = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._run(), name=name)

    async def _run(self) -> None:
        lane, ready = self._lane, self._ready
        while True:
            await self.work.wait()
            if not (ready.may_go and lane.may_send):
                self.work.clear()
                lane.wake()
                continue
            if (wait := lane.pause_seconds) > 0:
                self.work.clear()
                lane.wait(wait)
                continue
            if not lane.room():
                self.work.clear()
                lane.wait_for_room()
                continue
            transport = lane.transport
            try:
                slot = await self._reserve(transport)
            except AccountUnavailable as unavailable:
                lane.fail(unavailable.failure, connecting=True)
                continue
            except TransportClosed:  # the account was edited; the next transport is there already
                continue
            room = lane.room() if transport is lane.transport else 0  # it was edited meanwhile
            message = ready.next(room) if room and lane.may_send else None
            if message is None:
                slot.cancel()
                continue
            lane.send(slot, message)
