"""How many connections a node may have open in all (SPEC section 3)."""

from __future__ import annotations

from typing import Protocol


class Growing(Protocol):
    """Who may be waiting for a connection."""

    def grow(self) -> None:
        """One may be had: ask again for as many as are wanted."""


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

    def give_back(self) -> None:
        """A connection was closed."""
        self._free += 1
        self._serve()

    def change(self, limit: int) -> None:
        """From now on so many; what is open over that ends in its own time, and none is opened until then."""
        self._free += limit - self._limit
        self._limit = limit
        for _ in range(len(self._waiting)):
            self._serve()

    def _serve(self) -> None:
        if self._waiting and self._free > 0:
            pool = next(iter(self._waiting))
            del self._waiting[pool]
            pool.grow()
