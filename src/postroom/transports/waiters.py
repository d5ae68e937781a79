"""Who waits for a turn that somebody else will give: first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque


class Waiters:
    """A queue of those who wait. Whoever is woken looks again whether it is his turn: another may have been quicker."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Until woken. Who gives up when he has been woken already wakes the next one in his place."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self.wake()
            raise

    def wake(self) -> bool:
        """Wake who has waited for longest; whether anybody waited."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return True
        return False

    def wake_all(self) -> None:
        """Nobody needs to wait any more."""
        while self.wake():
            pass
