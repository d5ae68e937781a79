"""The messages of a lane that sends each to all its recipients at once (SPEC section 2.9)."""

from __future__ import annotations

from ..model.account import Account
from .ready import Ready

#: How long until it is asked again whether limits leave room for all recipients of a message.
ROOM_PATIENCE = 1.0


class ReadyWhole(Ready):
    """A queue that divides no message, but where a limit is smaller than it."""

    is_whole = True

    def most(self, account: Account) -> int:
        """See `Ready.most`."""
        return 1 << 30

    def fitted(self, room: int, ever: int) -> int:
        """See `Ready.fitted`."""
        if not room or not self.count:
            return room
        since = self._since_bulk
        flows = self._turn()
        self._since_bulk = since  # nobody has had the turn
        assert flows is not None
        message = next(iter(flows.values()))[0]
        wanted = 1 if self.redirects(message) else len(message.deliveries)
        return 0 if room < wanted <= ever else room
