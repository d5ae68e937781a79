"""One mail transaction of a client: the commands of its envelope, and what was answered (RFC 5321 section 3.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...model.envelope import Envelope
from ...model.reply import Reply
from .client_states import Step
from .errors import LocalProtocolError

#: `Reply.command` of the reply to the end of data.
END_OF_DATA_COMMAND = "."

# Nothing in it can end a path or a line. Quoted local-parts are looked at by the second one (RFC 5321 section 4.1.2).
_PLAIN = r'[^\x00-\x20"<>\\\x7f-\xa0\ud800-\udfff]+'
_PLAIN_PATH = re.compile(_PLAIN)
_QUOTED_PATH = re.compile(r'"(?:[^\x00-\x1f"\\\x7f-\xa0\ud800-\udfff]|\\[ -~])*"@' + _PLAIN)


def envelope_commands(envelope: Envelope, size_bytes: int, extensions: Mapping[str, str]) -> list[str]:
    """MAIL, each RCPT, and DATA, with their CRLF; parameters only where the server offers them.

    `size_bytes` is the content's size before dot stuffing (RFC 1870 section 6.1).

    Raises:
        LocalProtocolError: there is no recipient, an address could break out of its path, or one needs SMTPUTF8
            (RFC 6531) and the server has it not.
    """
    if not envelope.recipients:
        raise LocalProtocolError("an envelope without recipients")
    parameters = f" SIZE={size_bytes}" if "SIZE" in extensions else ""
    if envelope.eight_bit and "8BITMIME" in extensions:
        parameters += " BODY=8BITMIME"
    utf8 = envelope.smtputf8 and "SMTPUTF8" in extensions
    if utf8:
        parameters += " SMTPUTF8"
    reverse_path = envelope.reverse_path
    lines = [f"MAIL FROM:<{reverse_path and _path(reverse_path, utf8)}>{parameters}\r\n"]
    lines += [f"RCPT TO:<{_path(recipient, utf8)}>\r\n" for recipient in envelope.recipients]
    lines.append("DATA\r\n")
    return lines


class MailTransaction:
    """What a server has answered to one transaction so far; whole once it has ended.

    `mail`, `rcpt` (one for each recipient), `data` (to DATA) and `final` (to the end of data) are None where no reply
    came, or where nothing was asked. `content_written`: the end of data of its content was handed to the connection;
    without `final`, the message may have arrived.

    `error` is empty, or why the transaction broke off, `error_kind` one of "network", "timeout", "protocol",
    "closing" (a 421), "aborted" (by us) and "local" (the envelope could not be written, or the content not be
    read). `not_started`: the break has nothing to do with this transaction and none of its content was written, so
    it can be sent again as if nothing had been.
    """

    __slots__ = (
        "accepted",
        "answered",
        "content_written",
        "data",
        "envelope",
        "error",
        "error_kind",
        "final",
        "is_first",
        "lines",
        "mail",
        "not_started",
        "rcpt",
        "size_bytes",
        "step",
    )

    def __init__(self, envelope: Envelope, size_bytes: int) -> None:
        self.envelope = envelope
        self.size_bytes = size_bytes
        self.mail: Reply | None = None
        self.rcpt: list[Reply | None] = [None] * len(envelope.recipients)
        self.data: Reply | None = None
        self.final: Reply | None = None
        self.content_written = False
        self.error = ""
        self.error_kind = ""
        self.not_started = False
        # The machine's own:
        self.step = Step.WAITING
        self.lines: list[str] = []
        self.answered = 0  # of MAIL and the RCPTs
        self.accepted = 0  # recipients, after an accepted MAIL
        self.is_first = False  # on its connection

    def is_delivered(self, n: int) -> bool:
        """Whether the server took responsibility for recipient `n`: MAIL, RCPT and content were all answered 2yz."""
        rcpt, final = self.rcpt[n], self.final
        return (
            self.mail is not None
            and self.mail.is_positive
            and rcpt is not None
            and rcpt.is_positive
            and final is not None
            and final.is_positive
        )

    @property
    def is_abandoned(self) -> bool:
        """Ended without its content: refused at MAIL, at DATA, or for every recipient."""
        return self.step is Step.DONE and not self.content_written


def _path(address: str, utf8: bool) -> str:
    if not address.isascii() and not utf8:
        raise LocalProtocolError(f"{address!r} needs SMTPUTF8, which is not on")
    if _PLAIN_PATH.fullmatch(address) is None and _QUOTED_PATH.fullmatch(address) is None:
        raise LocalProtocolError(f"{address!r} cannot stand in a path")
    return address
