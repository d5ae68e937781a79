"""Which account a message goes through: the topmost match of one ordered list (SPEC section 2.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import Refused
from ..model.account import Account, AccountKind
from ..model.application import ALL_ACCOUNTS, SANDBOXES, Application


@dataclass(frozen=True, slots=True)
class PassedOver:
    """An account that was not chosen, and why."""

    account: str
    reason: str


def may_use(application: Application, account: Account) -> bool:
    """Whether the application was given the account."""
    granted = application.accounts
    if ALL_ACCOUNTS in granted or account.name in granted:
        return True
    return SANDBOXES in granted and account.kind is AccountKind.SANDBOX


def route(accounts: Sequence[Account], application: Application, named: str = "") -> Account:
    """The account for a message of `application`: the one it named, else the topmost that it may use.

    `accounts` are in list order. Disabled accounts match too: their mail waits.

    Raises:
        Refused: no account matches, enabled or not (550 5.7.1).
    """
    for account in accounts:
        if passed_over(account, application, named) is None:
            return account
    if named:
        raise Refused(f"application {application.name!r} has no account {named!r} that it may use")
    raise Refused(f"no account is there that application {application.name!r} may use")


def passed_over(account: Account, application: Application, named: str = "") -> PassedOver | None:
    """Why `account` does not match, or None when it does."""
    if named and account.name.lower() != named.lower():
        return PassedOver(account.name, f"the message names account {named!r}")
    if not may_use(application, account):
        return PassedOver(account.name, f"application {application.name!r} may not use it")
    return None
