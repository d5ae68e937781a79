"""How many connections a node may have open in all (SPEC section 3)."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Growing(Protocol):
    """Who may be waiting for a connection."""

    def grow(self) -> bool:
        """One may be had: ask again for as many as are wanted, now or in the next turn of the loop. False: none is."""


class ConnectionBudget:
    """How many outgoing connections this node may have open in all (SPEC section 3)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit
        self._waiting: dict[Growing, None] = {}

    def take(self, pool: Growing) -> bool:
        """One connection more, or False; then `pool.grow` is called when one is given back."""
        if self._free > 0:
            self._free -= 1
            return True
        self._waiting[pool] = None
        return False

    async def taken(self) -> None:
        """Wait for one connection more, in turn."""
        turn = _Turn(self)
        if self.take(turn):
            return
        try:
            await turn.come
        except asyncio.CancelledError:
            self.forget(turn)
            if turn.come.done() and not turn.come.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """A connection was closed."""
        self._free += 1
        self.serve()

    def forget(self, pool: Growing) -> None:
        """It wants none any more."""
        self._waiting.pop(pool, None)

    def change(self, limit: int) -> None:
        """From now on so many; what is open over that ends in its own time, and none is opened until then."""
        self._free += limit - self._limit
        self._limit = limit
        self.serve()

    def serve(self) -> None:
        """Ask those who wait, in turn, for as long as there are connections to be had."""
        promised = 0
        while self._waiting and self._free > promised:
            pool = next(iter(self._waiting))
            del self._waiting[pool]
            free = self._free
            if pool.grow() and self._free == free:
                promised += 1  # it takes it in the next turn of the loop


class _Turn:
    """The place in the queue of one who waits for one connection; `come` tells that it has it."""

    __slots__ = ("_budget", "come")

    def __init__(self, budget: ConnectionBudget) -> None:
        self._budget = budget
        self.come: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def grow(self) -> bool:
        """See `Growing`."""
        if self.come.done() or not self._budget.take(self):
            return False
        self.come.set_result(None)
        return True
