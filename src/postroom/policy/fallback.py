"""Which account takes over while another can't send, and when it may (SPEC section 2.8; docs/fallback.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..model.account import Account, AccountKind, Fallback
from ..model.application import Application
from .routing import RoutingTable, Senders, may_use

#: Whether an account can take mail of others now.
CanTake = Callable[[Account], bool]


def successor(
    table: RoutingTable,
    account: Account,
    application: Application,
    senders: Senders,
    recipient: str,
    can_take: CanTake,
) -> Account | None:
    """The first account that takes over from `account` for this recipient and can; None: nobody does.

    A sandbox never takes over: it would swallow the mail.
    """
    for candidate in _candidates(table, account, application, senders, recipient):
        if can_take(candidate):
            return candidate
    return None


def _candidates(
    table: RoutingTable, account: Account, application: Application, senders: Senders, recipient: str
) -> Iterator[Account]:
    if account.fallback is Fallback.NEXT_MATCH:
        yield from table.next_matches(application, senders, recipient, account.id)
    elif account.fallback is Fallback.ACCOUNTS:
        for name in account.fallback_accounts:
            named = table.by_name(name)
            if named is None or named.id == account.id or named.kind is AccountKind.SANDBOX:
                continue
            if may_use(application, named):
                yield named
