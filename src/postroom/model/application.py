"""An application: a sender with its own credentials and rights (SPEC section 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from .limits import NO_LIMITS, Limits

#: In `Application.accounts`: every account, and every account of kind sandbox.
ALL_ACCOUNTS = "*"
SANDBOXES = "kind:sandbox"

#: `Application.owner` of an application that no console user owns.
SYSTEM = "system"


class HeaderDoor(StrEnum):
    """What a message may ask for in a field `X-Postroom-...` of its header (SPEC section 4, door 6)."""

    ACCOUNT = "account"
    TEMPLATE = "template"
    SEND_AT = "send-at"
    IDEMPOTENCY_KEY = "idempotency-key"
    TAG = "tag"
    PRIORITY = "priority"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatGuard:
    """From the message number `count` with the same recipient and body on, `within` that time, they are held."""

    count: int | None = None
    within: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """Who may submit, from where, as whom and through which accounts.

    `address` is its own: the sender of composed mail that has none. `networks` are CIDRs from which it may come (empty:
    any, with credentials); `passwordless` lets these networks submit without credentials. `senders` are patterns (an
    address, `*@domain`, `*@*.domain`, `*`), none of them until named. `accounts` are names, `*` or `kind:sandbox`.
    `may_connect_to` are CIDRs and names that the address guard lets pass for it. `credential` is the keyed hash of the
    generated password.
    """

    id: int
    name: str
    revision: int = 1
    description: str = ""
    enabled: bool = True
    owner: str = SYSTEM
    address: str = ""
    passwordless: bool = False
    networks: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()
    accounts: tuple[str, ...] = (ALL_ACCOUNTS,)
    urgent: bool = False
    header_doors: tuple[HeaderDoor, ...] = ()
    dynamic: bool = False
    may_connect_to: tuple[str, ...] = ()
    apply_suppressions: bool = False
    limits: Limits = NO_LIMITS
    repeat_guard: RepeatGuard = RepeatGuard()
    credential: bytes = field(default=b"", repr=False)
