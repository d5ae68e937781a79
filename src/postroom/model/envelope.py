"""The envelope (RFC 5321 section 2.3.1): reverse-path and recipients, apart from the headers."""

from __future__ import annotations

from .record import record

#: An address as it stands on the wire, `local@domain` without angle brackets; the null reverse-path is "".
Address = str


@record
class Envelope:
    """Who a message is from and to, as the protocol says it.

    `recipients` are in the order given and never empty once a message is accepted. `eight_bit` says that the content
    was declared or found to hold octets over 127 (RFC 6152); `smtputf8` that it was declared to need RFC 6531.
    """

    reverse_path: Address
    recipients: tuple[Address, ...]
    eight_bit: bool = False
    smtputf8: bool = False

    @property
    def is_null(self) -> bool:
        """A null reverse-path: a notification, about which none may be made."""
        return not self.reverse_path
