"""An application: a sender with its own credentials and rights (SPEC section 1)."""

from __future__ import annotations

from dataclasses import dataclass, field

#: In `Application.accounts`: every account, and every account of kind sandbox.
ALL_ACCOUNTS = "*"
SANDBOXES = "kind:sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """Who may submit, from where, as whom and through which accounts.

    `networks` are CIDRs from which it may come (empty: any, with credentials); `passwordless` lets these networks
    submit without credentials. `senders` are patterns (an address, `*@domain`, `*@*.domain`, `*`), none of them until
    named. `accounts` are names, `*` or `kind:sandbox`. `credential` is the keyed hash of the generated password.
    """

    id: int
    name: str
    revision: int = 1
    description: str = ""
    enabled: bool = True
    passwordless: bool = False
    networks: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()
    accounts: tuple[str, ...] = (ALL_ACCOUNTS,)
    credential: bytes = field(default=b"", repr=False)
