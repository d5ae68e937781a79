"""Envelopes of messages that come over HTTP: addresses read strictly, from the request or from the header."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import Busy, Fault, InvalidInput
from ..mime.address import parse_mailboxes
from ..mime.head import scan
from ..mime.typed import typed_address
from ..model.envelope import Envelope
from ..protocol.smtp.path import ArgumentError, parse_mail, parse_rcpt

_BREAKS = re.compile(r"[\x00-\x1f\x7f]")


def reverse_path(text: str, field: str = "from") -> str:
    """The reverse-path that `text` writes; "" is the null one.

    Raises:
        InvalidInput: it is no address.
    """
    return parse_mail(_argument(b"FROM", text, field)).path if text else ""


def recipient(text: str, field: str = "to") -> str:
    """The recipient that `text` writes.

    Raises:
        InvalidInput: it is no address.
    """
    argument = _argument(b"TO", text, field)
    try:
        return parse_rcpt(argument).address
    except ArgumentError as error:
        raise _fault(field, text, error) from None


def _argument(keyword: bytes, text: str, field: str) -> bytes:
    try:
        if _BREAKS.search(text):
            raise ValueError(f"{text!r} holds a control character")
        argument = keyword + b":<" + typed_address(text).encode() + b">"
        if keyword == b"FROM":
            argument += b"" if argument.isascii() else b" SMTPUTF8"
            parse_mail(argument)
    except (ArgumentError, ValueError) as error:
        raise _fault(field, text, error) from None
    return argument


def _fault(field: str, text: str, error: Exception) -> InvalidInput:
    if isinstance(error, ArgumentError):
        fault = f"{text!r} can't be used: {str(error)[0].lower()}{str(error)[1:]}"
    else:
        fault = str(error)
    return InvalidInput(Fault(field, fault, "write an address, as in ann@example.org"))


def header_sender(head: bytes) -> str:
    """The address in Sender, else the first in From: the reverse-path when the request names none.

    Raises:
        InvalidInput: there is none that can be read.
    """
    fields = scan(head)
    for name in (b"sender", b"from"):
        value = fields.first(name)
        if value is not None:
            addresses = _mailboxes(value, name.decode())
            if addresses:
                return reverse_path(addresses[0], name.decode())
    raise InvalidInput(Fault("from", "there is no sender in the request nor in the header", "name one with from"))


def header_recipients(head: bytes) -> tuple[str, ...]:
    """The addresses in To, Cc and Bcc: the recipients when the request names none.

    Raises:
        InvalidInput: one of the fields can't be read.
    """
    fields = scan(head)
    return tuple(
        recipient(address, name.decode())
        for name in (b"to", b"cc", b"bcc")
        for value in fields.all(name)
        for address in _mailboxes(value, name.decode())
    )


def _mailboxes(value: bytes, field: str) -> tuple[str, ...]:
    try:
        return parse_mailboxes(value)
    except ValueError as error:
        raise InvalidInput(Fault(field, f"the header field can't be read: {error}", "mend the field")) from None


def envelope_of(
    path: str, recipients: Sequence[str], *, eight_bit: bool, smtputf8: bool, max_recipients: int
) -> Envelope:
    """The envelope, each recipient once.

    Raises:
        InvalidInput: there is no recipient.
        Busy: there are too many for one message.
    """
    once = tuple(dict.fromkeys(recipients))
    if not once:
        raise InvalidInput(Fault("to", "there is no recipient", "name at least one"))
    if len(once) > max_recipients:
        raise Busy(
            f"{len(once)} recipients are too many for one message: send it to at most {max_recipients} at a time"
        )
    return Envelope(path, once, eight_bit, smtputf8)
