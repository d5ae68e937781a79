"""One mail transaction of a client: the commands of its envelope, and what was answered (RFC 5321 section 3.3)."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from enum import Enum
from types import MappingProxyType

from ...model.envelope import Envelope
from ...model.reply import Reply
from .client_limits import OfferedLimits
from .client_states import Step
from .errors import LocalProtocolError

#: `Reply.command` of the reply to the end of data.
END_OF_DATA_COMMAND = "."

# Nothing in it can end a path or a line. Quoted local-parts are looked at by the second one (RFC 5321 section 4.1.2).
_ASCII_PATH = re.compile(r'[^\x00-\x20"<>\\\x7f-\U0010ffff]+')
_PLAIN = r'[^\x00-\x20"<>\\\x7f-\xa0\ud800-\udfff]+'
_PLAIN_PATH = re.compile(_PLAIN)
_QUOTED_PATH = re.compile(r'"(?:[^\x00-\x1f"\\\x7f-\xa0\ud800-\udfff]|\\[ -~])*"@' + _PLAIN)

# A value of RFC 3461 section 4 has neither space nor control character, whatever else it is.
_VALUE = re.compile(r"[!-~]+")


class LeftOut(Enum):
    """Why a recipient was not asked for in its transaction."""

    REVERSE_PATH = "reverse-path"  # needs SMTPUTF8 (RFC 6531), which the server does not offer
    HEADER = "header"  # as well
    ADDRESS = "address"  # as well: the recipient's own
    LIMIT = "limit"  # the server takes no more recipients in one transaction (RFC 9422)


_NOBODY: Mapping[int, LeftOut] = MappingProxyType({})


class MailTransaction:
    """What a server has answered to one transaction so far; whole once it has ended.

    `mail`, `rcpt` (one for each recipient), `data` (to DATA) and `final` (to the end of data) are None where no reply
    came, or where nothing was asked. `left_out` has the recipients, by index, that were never asked for, and why.
    `content_written`: the end of data of its content was handed to the connection; without `final`, the message may
    have arrived.

    `error` is empty, or why the transaction broke off, `error_kind` one of "network", "timeout", "protocol",
    "closing" (a 421), "aborted" (by us) and "local" (the envelope could not be written, or the content not be
    read). `not_started`: the break has nothing to do with this transaction and none of its content was written, so
    it can be sent again as if nothing had been.
    """

    __slots__ = (
        "accepted",
        "answered",
        "asked",
        "content_written",
        "data",
        "envelope",
        "error",
        "error_kind",
        "final",
        "is_first",
        "is_watched",
        "left_out",
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
        self.left_out = _NOBODY
        self.content_written = False
        self.error = ""
        self.error_kind = ""
        self.not_started = False
        self.is_watched = False  # `MailAnswered` is wanted
        # The machine's own:
        self.step = Step.WAITING
        self.lines: list[str] = []  # MAIL, each RCPT, and DATA, with their CRLF; empty: nobody is left to ask for
        self.asked: Sequence[int] | None = None  # the recipients of the RCPTs, by index; None: each in order
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
    def was_begun(self) -> bool:
        """Whether its MAIL was written."""
        return self.step is not Step.WAITING

    @property
    def is_abandoned(self) -> bool:
        """Ended without its content: refused at MAIL, at DATA, or for every recipient."""
        return self.step is Step.DONE and not self.content_written

    @property
    def is_untouched(self) -> bool:
        """Nothing of its content was written and it did not break the connection itself (see `not_started`)."""
        if self.step is Step.WAITING:
            return True
        if self.is_first or self.step not in (Step.ENVELOPE, Step.GO):
            return False
        # Behind another one: a server that takes no more on this connection says so here, or just closes.
        return self.step is Step.GO or self.mail is None or self.mail.code == 421

    def prepare(self, extensions: Container[str], limits: OfferedLimits | None) -> None:
        """Decide on `lines` and who is left out, by what the server offers.

        Parameters are given only where they are needed and offered. `size_bytes` is the content's size before dot
        stuffing (RFC 1870 section 6.1).

        Raises:
            LocalProtocolError: there is no recipient, or an address or a DSN parameter could break out of its place.
        """
        envelope = self.envelope
        parameters = f" SIZE={self.size_bytes}" if "SIZE" in extensions else ""
        if envelope.eight_bit and "8BITMIME" in extensions:
            parameters += " BODY=8BITMIME"
        if limits is None and envelope.dsn is None and not envelope.smtputf8:
            path = _ASCII_PATH.fullmatch
            reverse_path, recipients = envelope.reverse_path, envelope.recipients
            if recipients and (not reverse_path or path(reverse_path)) and all(map(path, recipients)):
                lines = [f"MAIL FROM:<{reverse_path}>{parameters}\r\n"]
                lines += [f"RCPT TO:<{recipient}>\r\n" for recipient in recipients]
                lines.append("DATA\r\n")
                self.lines = lines
                return
        self._prepare_all(parameters, extensions, limits or OfferedLimits())

    def _prepare_all(self, parameters: str, extensions: Container[str], limits: OfferedLimits) -> None:
        """As `prepare`, with all that is rare; `parameters` are those of MAIL so far."""
        envelope = self.envelope
        _require_safe(envelope)
        self.left_out = left_out = _left_out(envelope, "SMTPUTF8" in extensions, limits)
        self.asked = asked = [n for n in range(len(envelope.recipients)) if n not in left_out]
        self.lines = []
        if not asked:
            return
        written = [envelope.reverse_path, *(envelope.recipients[n] for n in asked)]
        if "SMTPUTF8" in extensions and (envelope.smtputf8 or not all(map(str.isascii, written))):
            parameters += " SMTPUTF8"
        dsn = envelope.dsn if "DSN" in extensions else None
        if dsn is not None:
            parameters += _parameter("RET", [dsn.ret]) + _parameter("ENVID", [dsn.envid])
        self.lines.append(f"MAIL FROM:<{envelope.reverse_path}>{parameters}\r\n")
        for n in asked:
            parameters = "" if dsn is None else _parameter("NOTIFY", dsn.notify, n) + _parameter("ORCPT", dsn.orcpt, n)
            self.lines.append(f"RCPT TO:<{envelope.recipients[n]}>{parameters}\r\n")
        self.lines.append("DATA\r\n")


def _parameter(name: str, values: Sequence[str], n: int = 0) -> str:
    return f" {name}={values[n]}" if values and values[n] else ""


def _require_safe(envelope: Envelope) -> None:
    if not envelope.recipients:
        raise LocalProtocolError("an envelope without recipients")
    paths = envelope.recipients if envelope.is_null else (envelope.reverse_path, *envelope.recipients)
    for address in paths:
        if _PLAIN_PATH.fullmatch(address) is None and _QUOTED_PATH.fullmatch(address) is None:
            raise LocalProtocolError(f"{address!r} cannot stand in a path")
    dsn = envelope.dsn
    for value in () if dsn is None else (dsn.ret, dsn.envid, *dsn.notify, *dsn.orcpt):
        if value and _VALUE.fullmatch(value) is None:
            raise LocalProtocolError(f"{value!r} cannot stand in a parameter")


def _left_out(envelope: Envelope, smtputf8: bool, limits: OfferedLimits) -> Mapping[int, LeftOut]:
    recipients = envelope.recipients
    left_out: dict[int, LeftOut] = {}
    if not smtputf8:
        # RFC 6531 section 3.5: nothing that needs the extension may be sent to a server without it.
        if not envelope.reverse_path.isascii():
            return dict.fromkeys(range(len(recipients)), LeftOut.REVERSE_PATH)
        if envelope.smtputf8:
            return dict.fromkeys(range(len(recipients)), LeftOut.HEADER)
        left_out = {n: LeftOut.ADDRESS for n, recipient in enumerate(recipients) if not recipient.isascii()}
    most = limits.recipients or len(recipients)
    most_domains = limits.recipient_domains or len(recipients)
    count, domains = 0, set[str]()
    for n, recipient in enumerate(recipients):
        if n in left_out:
            continue
        domain = recipient.rpartition("@")[2].lower()
        if count == most or (len(domains) == most_domains and domain not in domains):
            left_out[n] = LeftOut.LIMIT
            continue
        count += 1
        domains.add(domain)
    return left_out
