"""The envelope (RFC 5321 section 2.3.1): reverse-path and recipients, apart from the headers."""

from __future__ import annotations

from .record import record

#: An address as it stands on the wire, `local@domain` without angle brackets; the null reverse-path is "".
Address = str


@record
class DsnRequest:
    """What the sender asks of notifications (RFC 3461), each as it stands on the wire, in ASCII; "" where not asked.

    `ret` is FULL or HDRS, `envid` xtext (section 4.4). `notify` and `orcpt` have an entry for each recipient: NEVER, or
    any of SUCCESS, FAILURE, DELAY in this order, joined by commas (section 4.1); and `type;xtext` (section 4.2, RFC
    6533 section 3).
    """

    ret: str = ""
    envid: str = ""
    notify: tuple[str, ...] = ()
    orcpt: tuple[str, ...] = ()

    @classmethod
    def of(cls, ret: str, envid: str, notify: tuple[str, ...], orcpt: tuple[str, ...]) -> DsnRequest | None:
        """A request of these, None where nothing is asked."""
        return cls(ret, envid, notify, orcpt) if ret or envid or any(notify) or any(orcpt) else None


@record
class Envelope:
    """Who a message is from and to, as the protocol says it.

    `recipients` are in the order given and never empty once a message is accepted. `eight_bit` says that the content
    was declared or found to hold octets over 127 (RFC 6152); `smtputf8` that its header section was declared to need
    RFC 6531, and does (addresses that need it show it themselves). `dsn` is None where nothing was asked.
    """

    reverse_path: Address
    recipients: tuple[Address, ...]
    eight_bit: bool = False
    smtputf8: bool = False
    dsn: DsnRequest | None = None

    @property
    def is_null(self) -> bool:
        """A null reverse-path: a notification, about which none may be made."""
        return not self.reverse_path
