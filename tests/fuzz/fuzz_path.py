"""A path and parameters or ArgumentError, never anything else; what is taken goes on over the wire as it was read.

An input is the argument of MAIL or RCPT.
"""

from __future__ import annotations

import re

from postroom.model.envelope import DsnRequest, Envelope
from postroom.protocol.smtp.path import POSTMASTER, ArgumentError, parse_mail, parse_rcpt
from postroom.protocol.smtp.transaction import MailTransaction
from tests.protocol.transcript_file import transcripts

TOKENS = (
    b"FROM:<", b"TO:<", b">", b"<", b"@", b",", b":", b'"', b"\\", b" ", b"  ", b".", b"[", b"]", b"IPv6:",
    b"a@b.test", b" SIZE=1", b" BODY=8BITMIME", b" SMTPUTF8", b" RET=HDRS", b" ENVID=a+2B", b" NOTIFY=NEVER",
    b" NOTIFY=FAILURE,DELAY", b" AUTH=<>", b" ORCPT=rfc822;a+40b", b" ORCPT=utf-8;\\x{E9}", b"\xc3\xa9", b"xn--",
    b"\xe3\x80\x82", b"\xef\xbc\xa0", b"\xff", b"\r\n", b"\x00",
)  # fmt: skip

#: Everything that a relay may offer.
OFFERED = {"SIZE": "", "8BITMIME": "", "SMTPUTF8": "", "DSN": ""}

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def seeds() -> list[bytes]:
    """What stands behind MAIL and RCPT in the transcripts."""
    lines = [
        line.octets.strip(b"\r\n")
        for one in transcripts("server")
        for turn in one.turns
        if not isinstance(turn, str)
        for line in turn.lines
    ]
    return sorted({line[5:] for line in lines if line[:5].upper() in (b"MAIL ", b"RCPT ") and len(line) < 500})


def one_input(data: bytes) -> None:
    """See the top."""
    _mail(data)
    _rcpt(data)


def _mail(argument: bytes) -> None:
    try:
        found = parse_mail(argument)
    except ArgumentError as error:
        _check_fault(error)
        return
    assert argument.isascii() or found.smtputf8
    envelope = Envelope(found.path, ("a@b.test",), found.eight_bit, found.smtputf8, _asked(found.ret, found.envid))
    again = parse_mail(_lines(envelope)[0].encode()[5:-2])
    assert (again.path, again.eight_bit, again.ret, again.envid) == (
        found.path,
        found.eight_bit,
        found.ret,
        found.envid,
    )
    assert again.smtputf8 == found.smtputf8


def _rcpt(argument: bytes) -> None:
    try:
        found = parse_rcpt(argument)
    except ArgumentError as error:
        _check_fault(error)
        return
    assert found.address == POSTMASTER or "@" in found.address
    dsn = DsnRequest.of("", "", (found.notify,), (found.orcpt,))
    again = parse_rcpt(_lines(Envelope("", (found.address,), dsn=dsn))[1].encode()[5:-2])
    assert (again.address, again.notify, again.orcpt) == (found.address, found.notify, found.orcpt)


def _asked(ret: str, envid: str) -> DsnRequest | None:
    return DsnRequest.of(ret, envid, ("",), ("",))


def _lines(envelope: Envelope) -> list[str]:
    """The commands that our client writes for it."""
    transaction = MailTransaction(envelope, 1)
    transaction.prepare(OFFERED, None)
    lines = transaction.lines
    assert len(lines) == 3
    assert not any(_CONTROL.search(line[:-2]) or line[-2:] != "\r\n" for line in lines)
    return lines


def _check_fault(error: ArgumentError) -> None:
    assert error.reply_code // 100 == 5 and error.enhanced.startswith("5.") and str(error).isprintable()
