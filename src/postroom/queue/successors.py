"""What a lane asks of who looks after fallback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..model.account import Account
from ..model.queue import DueDelivery, DueMessage
from ..store import Claim


class Successors(Protocol):
    """Other accounts, as a lane sees them."""

    def look(self) -> None:
        """Something has changed that may move mail."""

    def refused(self, account: Account, message: DueMessage, delivery: DueDelivery) -> Account | None:
        """Who takes a delivery whose sender `account` refuses for good; None: nobody."""

    def take(self, account: Account, claim: Claim, taken: Mapping[int, Account]) -> None:
        """Move deliveries that `account` has just given up, by recipient number; their outcome was handed to the store
        before."""
