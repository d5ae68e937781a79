"""Which account a message goes through: the topmost match of one ordered list (SPEC section 2.6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import Refused
from ..model.account import Account, AccountKind
from ..model.application import ALL_ACCOUNTS, SANDBOXES, Application
from .pattern_index import PatternIndex
from .patterns import matches_any

#: The reverse-path, and the addresses of From where they differ: an account's sender patterns need cover one of them.
Senders = Sequence[str]

#: Applications whose accounts are remembered; more are looked up anew.
_REMEMBERED = 1000


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


class RoutingTable:
    """The list of accounts at one moment, made for many questions; `accounts` are in list order.

    Disabled and sleeping accounts match too: their mail waits, or falls back.
    """

    def __init__(self, accounts: Sequence[Account]) -> None:
        self.accounts = tuple(accounts)
        self._senders = PatternIndex([account.sender_patterns for account in accounts])
        self._recipients = PatternIndex([account.recipient_patterns for account in accounts])
        self._by_name = {account.name.lower(): n for n, account in enumerate(accounts)}
        self._places = {account.id: n for n, account in enumerate(accounts)}
        self._granted: dict[tuple[str, ...], int] = {}
        #: Whether any account asks who sends: else the From field need not be read.
        self.asks_for_sender = any(account.sender_patterns for account in accounts)

    def route(self, application: Application, senders: Senders, recipient: str, named: str = "") -> Account:
        """The account for one recipient: the one that the message named, else the topmost match.

        Raises:
            Refused: no account matches, enabled or not (550 5.7.1).
        """
        found = self._named(application, named) if named else self._matching(application, senders, recipient)
        if found:
            return self.accounts[(found & -found).bit_length() - 1]
        if named:
            raise Refused(f"application {application.name!r} has no account {named!r} that it may use")
        if not self._granted_to(application):
            raise Refused(f"no account is there that application {application.name!r} may use")
        raise Refused(
            f"no account takes mail from {_shown(senders)} to <{recipient}> for application {application.name!r}"
        )

    def next_matches(
        self, application: Application, senders: Senders, recipient: str, after: int, named: str = ""
    ) -> Iterator[Account]:
        """The accounts that may take over from the account with id `after`, in order: matches below it, no sandboxes.

        A message that named its account has no other.
        """
        place = self._places.get(after)
        if named or place is None:
            return
        found = self._matching(application, senders, recipient) >> (place + 1) << (place + 1)
        while found:
            lowest = found & -found
            account = self.accounts[lowest.bit_length() - 1]
            if account.kind is not AccountKind.SANDBOX:
                yield account
            found ^= lowest

    def by_id(self, account_id: int) -> Account | None:
        """The account with that id."""
        place = self._places.get(account_id)
        return None if place is None else self.accounts[place]

    def by_name(self, name: str) -> Account | None:
        """The account of that name, without regard to case."""
        place = self._by_name.get(name.lower())
        return None if place is None else self.accounts[place]

    def _named(self, application: Application, named: str) -> int:
        place = self._by_name.get(named.lower())
        return 0 if place is None else 1 << place & self._granted_to(application)

    def _matching(self, application: Application, senders: Senders, recipient: str) -> int:
        covering = 0
        for sender in senders:
            covering |= self._senders.covering(sender)
        return covering & self._recipients.covering(recipient) & self._granted_to(application)

    def _granted_to(self, application: Application) -> int:
        granted = self._granted.get(application.accounts)
        if granted is None:
            if len(self._granted) >= _REMEMBERED:
                self._granted.clear()
            granted = 0
            for n, account in enumerate(self.accounts):
                if may_use(application, account):
                    granted |= 1 << n
            self._granted[application.accounts] = granted
        return granted


def passed_over(
    account: Account, application: Application, senders: Senders, recipient: str, named: str = ""
) -> PassedOver | None:
    """Why `account` does not match, or None when it does."""
    if named and account.name.lower() != named.lower():
        return PassedOver(account.name, f"the message names account {named!r}")
    if not may_use(application, account):
        return PassedOver(account.name, f"application {application.name!r} may not use it")
    if named:
        return None
    if account.sender_patterns and not any(matches_any(account.sender_patterns, sender) for sender in senders):
        return PassedOver(account.name, f"its sender patterns do not cover {_shown(senders)}")
    if account.recipient_patterns and not matches_any(account.recipient_patterns, recipient):
        return PassedOver(account.name, f"its recipient patterns do not cover <{recipient}>")
    return None


def _shown(senders: Senders) -> str:
    return " or ".join(f"<{sender}>" for sender in senders)
