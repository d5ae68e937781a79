"""Reports to senders: multipart/report with the delivery status of each recipient (RFC 3464, RFC 6522, RFC 3461).

A report is itself never reported about: its envelope has the null reverse-path (RFC 3461 section 6.1). What it quotes
comes from strangers; nothing of it can end a line or a part.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ..model.envelope import Address
from . import header
from .address import Mailbox, is_address

_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_NOT_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
#: What a line of 7 bits may hold (RFC 2045 section 2.7); everything else is encoded.
_SEVEN_BITS = re.compile(rb"[\t\r\n -~]*")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,900}>")
_IPV4_ADDRESS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")

#: Of the words of one recipient's reply, and in one line of the delivery status.
_REPLY_CHARACTERS = 1000
_LINE_CHARACTERS = 78
_LINE_LIMIT = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRecipient:
    """One recipient of a report; `action` is failed, delayed or relayed (RFC 3464 section 2.3.3).

    `orcpt` is as ORCPT gave it, `status` an enhanced status code, `reply` the last words about it: of `remote_host`
    when `is_quoted` (`is_smtp`: a reply of SMTP), else Postroom's own. `remote_host` is the last one that was reached
    (empty: none), `advice` words for people. `is_given_up`: it failed because its time was over. `retried_until`
    belongs to a delay.
    """

    address: Address
    action: str
    status: str
    reply: str = ""
    is_quoted: bool = False
    is_smtp: bool = True
    is_given_up: bool = False
    advice: str = ""
    orcpt: str = ""
    remote_host: str = ""
    last_attempt: datetime | None = None
    retried_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a report says. `hostname` is the reporting MTA, `envid` as ENVID gave it (RFC 3461 section 4.4).

    `number` is what the message is called here, `head` its header section. `returns_body`: all of it comes back, and
    `is_eight_bit` says that its body holds octets over 127.
    """

    hostname: str
    sender: Mailbox
    to: tuple[Address, ...]
    number: str
    accepted: datetime
    subject: str
    header_message_id: str
    envid: str
    recipients: tuple[ReportedRecipient, ...]
    head: bytes
    returns_body: bool = False
    is_eight_bit: bool = False


@dataclass(frozen=True, slots=True)
class ComposedReport:
    """A report with CRLF line ends; the body that is returned goes between `opening` and `closing`."""

    head: bytes
    opening: bytes
    closing: bytes


def compose_report(report: Report, *, date: datetime, message_id: str, boundary_seed: bytes) -> ComposedReport:
    """The report, 7-bit but for a message that comes back whole, which stays as it was.

    Raises:
        ValueError: the sender or the Message-ID can't be written.
    """
    boundary = "=_" + hashlib.sha256(boundary_seed).hexdigest()[:32]
    delimiter = b"\r\n--" + boundary.encode()
    fields, returned = _returned(report)
    head = b"".join(
        (
            header.addresses("From", [report.sender]),
            _to(report.to),
            header.unstructured("Subject", f"{_TITLES[_worst(report)]}: {_one_line(report.subject) or 'your message'}"),
            header.token("Date", header.date_value(date)),
            header.token("Message-ID", message_id),
            *_references(report.header_message_id),
            header.token("Auto-Submitted", "auto-replied"),  # RFC 3834 section 5
            b"MIME-Version: 1.0\r\n",
            header.parameterised(
                "Content-Type", "multipart/report", {"report-type": "delivery-status", "boundary": boundary}
            ),
            _EIGHT_BIT if _EIGHT_BIT in fields else b"",  # RFC 2045 section 6.4: of the whole as of the part
            b"\r\n",
        )
    )
    parts = (_words(report), _delivery_status(report), fields + b"\r\n" + returned)
    opening = b"".join(delimiter + b"\r\n" + part for part in parts)
    return ComposedReport(head, opening, delimiter + b"--\r\n")


_TITLES = {"failed": "Not delivered", "delayed": "Delayed, still being tried", "relayed": "Passed on"}
_EIGHT_BIT = b"Content-Transfer-Encoding: 8bit\r\n"


def _worst(report: Report) -> str:
    actions = {recipient.action for recipient in report.recipients}
    return next(action for action in _TITLES if action in actions)


def _to(addresses: Sequence[Address]) -> bytes:
    if all(map(is_address, addresses)):
        return header.addresses("To", [Mailbox(address) for address in addresses])
    return b"To: undisclosed-recipients:;\r\n"  # the envelope can carry what a header field can't


def _references(message_id: str) -> Sequence[bytes]:
    if not _MESSAGE_ID.fullmatch(message_id):  # another program's idea of a Message-ID
        return ()
    return header.token("In-Reply-To", message_id), header.token("References", message_id)


_EXPLAINED = {
    "failed": "It could not be delivered to:",
    "delayed": "It has not been delivered yet, and is still being tried, to:",
    "relayed": "It was passed on to a mail server that does not tell when it is delivered, for:",
}


def _words(report: Report) -> bytes:
    """The part for people."""
    lines = [f"This is the mail gateway {_one_line(report.hostname)}, about your message", ""]
    lines.append(f"  Subject: {_one_line(report.subject) or '(none)'}")
    lines.append(f"  Taken:   {header.date_value(report.accepted)}")
    lines.append(f"  Number:  {report.number}")
    for action, words in _EXPLAINED.items():
        told = [recipient for recipient in report.recipients if recipient.action == action]
        if told:
            lines += ["", words]
        for recipient in told:
            lines += ["", f"  <{_one_line(recipient.address)}>", *(f"    {line}" for line in _why(recipient))]
    text = "\n".join([*lines, ""]).encode()
    fields = b'Content-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n'
    return fields + _quoted_printable(text)


def _why(recipient: ReportedRecipient) -> list[str]:
    host = _one_line(recipient.remote_host)
    if recipient.action == "relayed":
        return [f"taken by {host}" if host else "taken"]
    said = _one_line(recipient.reply)
    if recipient.is_quoted and host:
        said = f"{host} said: {said}"
    if recipient.is_given_up:
        said = f"given up after too long a time; last: {said}" if said else "given up after too long a time"
    words = [said or "nobody has answered for it yet"]
    if recipient.advice:
        words.append(f"What helps: {_one_line(recipient.advice)}")
    if recipient.retried_until is not None:
        words.append(f"It is tried until {header.date_value(recipient.retried_until)}.")
    return words


def _delivery_status(report: Report) -> bytes:
    """The part for programs (RFC 3464 section 2)."""
    lines = [f"Reporting-MTA: dns; {_one_line(report.hostname)}"]
    if report.envid:
        lines += _folded(f"Original-Envelope-Id: {_one_line(_from_xtext(report.envid))}")
    lines.append(f"Arrival-Date: {header.date_value(report.accepted)}")
    lines.append(f"X-Postroom-Message: {report.number}")
    for recipient in report.recipients:
        lines += ["", *_status(recipient)]
    text = "\r\n".join(lines) + "\r\n"
    return b"Content-Type: message/delivery-status\r\n\r\n" + text.encode("ascii", "replace")


def _status(recipient: ReportedRecipient) -> list[str]:
    lines = []
    if recipient.orcpt:
        kind, _, address = recipient.orcpt.partition(";")
        # RFC 6533 section 3: what is written by its number stays so in a part of 7 bits.
        plain = address if kind.lower() == "utf-8" else _from_xtext(address)
        lines += _folded(f"Original-Recipient: {kind}; {_one_line(plain)}")
    lines.append(f"Final-Recipient: {_typed(recipient.address)}")
    lines.append(f"Action: {recipient.action}")
    lines.append(f"Status: {recipient.status}")
    if recipient.remote_host:
        lines.append(f"Remote-MTA: dns; {_host_name(recipient.remote_host)}")
    if recipient.reply:
        kind = "smtp" if recipient.is_quoted and recipient.is_smtp else "x-postroom"  # RFC 3464 section 2.3.6
        lines += _folded(f"Diagnostic-Code: {kind}; {_one_line(recipient.reply)}")
    if recipient.last_attempt is not None:
        lines.append(f"Last-Attempt-Date: {header.date_value(recipient.last_attempt)}")
    if recipient.retried_until is not None:
        lines.append(f"Will-Retry-Until: {header.date_value(recipient.retried_until)}")
    return lines


def _typed(address: Address) -> str:
    if address.isascii():
        return f"rfc822; {_one_line(address)}"
    # RFC 6533 section 3: utf-8-addr-xtext, which fits into a message/delivery-status of ASCII.
    return "utf-8; " + "".join(c if "!" <= c <= "~" and c not in "\\+=" else f"\\x{{{ord(c):X}}}" for c in address)


def _host_name(remote_host: str) -> str:
    name = _one_line(remote_host.partition(" ")[0])
    if ":" in name:  # an address literal (RFC 5321 section 4.1.3)
        return f"[IPv6:{name}]"
    return f"[{name}]" if _IPV4_ADDRESS.fullmatch(name) else name


def _folded(line: str) -> list[str]:
    """`line` cut at spaces into lines of at most 78 characters where it can be (RFC 5322 section 2.2.3), and anywhere
    before it is longer than a line may be."""
    lines, rest = [], line
    while len(rest) > _LINE_CHARACTERS:
        at = rest.rfind(" ", 1, _LINE_CHARACTERS)
        if at < 1 or not rest[:at].strip():
            at = rest.find(" ", _LINE_CHARACTERS, _LINE_LIMIT)
        if at < 1:
            at = _LINE_LIMIT
        if not rest[at:].strip():
            break
        lines.append(rest[:at])
        rest = rest[at:] if rest[at] == " " else " " + rest[at:]
    return [*lines, rest]


def _returned(report: Report) -> tuple[bytes, bytes]:
    """The header of the part with the message that it is about, and the part as far as it is known here: the head, or
    all but the body (RFC 3461 section 6.2)."""
    head = report.head
    if report.returns_body:
        kind = b"message/rfc822" if head.isascii() or not _is_utf8(head) else b"message/global"  # RFC 6532 section 3.7
        coding = b"" if head.isascii() and not report.is_eight_bit else _EIGHT_BIT
        return b"Content-Type: " + kind + b"\r\n" + coding, head
    head = head.removesuffix(b"\r\n")
    if _SEVEN_BITS.fullmatch(head) and max(map(len, head.split(b"\r\n"))) <= 998:
        return b"Content-Type: text/rfc822-headers\r\n", head
    # RFC 6522 section 4: what is not legal in 7 bits is encoded.
    charset = b"utf-8" if _is_utf8(head) else b"unknown-8bit"
    fields = b"Content-Type: text/rfc822-headers; charset=" + charset
    return fields + b"\r\nContent-Transfer-Encoding: quoted-printable\r\n", _quoted_printable(head)


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _quoted_printable(text: bytes) -> bytes:
    """Lines, ended by LF or CRLF, encoded (RFC 2045 section 6.7)."""
    lines = text.replace(b"\r\n", b"\n").split(b"\n")
    return b"\r\n".join(binascii.b2a_qp(line, istext=False).replace(b"\n", b"\r\n") for line in lines)


def _from_xtext(text: str) -> str:
    """What xtext stands for (RFC 3461 section 4)."""
    return _XTEXT.sub(lambda found: chr(int(found[1], 16)), text)


def _one_line(text: str) -> str:
    return _NOT_TEXT.sub(" ", text[:_REPLY_CHARACTERS]).strip()
