"""Reports to senders: multipart/report with the delivery status of each recipient (RFC 3464, RFC 6522, RFC 3461).

A report is itself never reported about: its envelope has the null reverse-path (RFC 3461 section 6.1).
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
from .address import Mailbox

_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_NOT_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LINE_END = re.compile(rb"\r\n")
#: The words of one recipient's reply in the report.
_REPLY_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRecipient:
    """One recipient of a report; `action` is failed, delayed or relayed (RFC 3464 section 2.3.3).

    `orcpt` is as ORCPT gave it, `status` an enhanced status code, `reply` what was answered, by the host `remote_host`
    (empty: by Postroom itself), `advice` words for people. `retried_until` belongs to a delay.
    """

    address: Address
    action: str
    status: str
    reply: str
    advice: str = ""
    orcpt: str = ""
    remote_host: str = ""
    last_attempt: datetime | None = None
    retried_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a report says. `hostname` is the reporting MTA, `envid` as ENVID gave it (RFC 3461 section 4.4).

    `head` is the header section of the message that it is about; `body` is None where only the head is returned.
    """

    hostname: str
    sender: Mailbox
    to: tuple[Mailbox, ...]
    accepted: datetime
    subject: str
    header_message_id: str
    envid: str
    recipients: tuple[ReportedRecipient, ...]
    head: bytes
    body: bytes | None = None


def compose_report(report: Report, *, date: datetime, message_id: str, boundary_seed: bytes) -> bytes:
    """The report with CRLF line ends; 7-bit but for a body with other octets, which comes back as it was.

    Raises:
        ValueError: an address that cannot be written.
    """
    boundary = "=_" + hashlib.sha256(boundary_seed).hexdigest()[:32]
    delimiter = b"\r\n--" + boundary.encode()
    head = b"".join(
        (
            header.addresses("From", [report.sender]),
            header.addresses("To", report.to),
            header.unstructured("Subject", f"{_TITLES[_worst(report)]}: {_one_line(report.subject) or 'your message'}"),
            header.token("Date", header.date_value(date)),
            header.token("Message-ID", message_id),
            *_references(report.header_message_id),
            header.token("Auto-Submitted", "auto-replied"),  # RFC 3834 section 2
            b"MIME-Version: 1.0\r\n",
            header.parameterised(
                "Content-Type", "multipart/report", {"report-type": "delivery-status", "boundary": boundary}
            ),
        )
    )
    parts = (_words(report), _delivery_status(report), _returned(report))
    return b"".join((head, *(delimiter + b"\r\n" + part for part in parts), delimiter, b"--\r\n"))


_TITLES = {"failed": "Not delivered", "delayed": "Delayed, still being tried", "relayed": "Passed on"}


def _worst(report: Report) -> str:
    actions = {recipient.action for recipient in report.recipients}
    return next(action for action in _TITLES if action in actions)


def _references(message_id: str) -> Sequence[bytes]:
    try:
        return [header.token("In-Reply-To", message_id), header.token("References", message_id)] if message_id else []
    except ValueError:  # another program's idea of a Message-ID
        return []


_EXPLAINED = {
    "failed": "could not be delivered to:",
    "delayed": "has not been delivered yet, and is still being tried, to:",
    "relayed": "was passed on to a mail server that sends no reports of success, for:",
}


def _words(report: Report) -> bytes:
    """The part for people."""
    lines = [f"This is the mail gateway {report.hostname}.", ""]
    lines.append(f"Your message of {header.date_value(report.accepted)}")
    if subject := _one_line(report.subject):
        lines.append(f'with the subject "{subject}"')
    for action, words in _EXPLAINED.items():
        told = [recipient for recipient in report.recipients if recipient.action == action]
        if told:
            lines += [words, ""]
        for recipient in told:
            lines += [f"  <{recipient.address}>", *_why(recipient), ""]
    text = "\n".join(lines).encode("utf-8", "replace")
    fields = b'Content-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n'
    return fields + binascii.b2a_qp(text, istext=True).replace(b"\n", b"\r\n")


def _why(recipient: ReportedRecipient) -> list[str]:
    if recipient.action == "relayed":
        return [f"    taken by {recipient.remote_host}"]
    by = f"{recipient.remote_host} said: " if recipient.remote_host else ""
    words = [f"    {by}{_one_line(recipient.reply) or 'no answer yet'}"]
    if recipient.advice:
        words.append(f"    What helps: {_one_line(recipient.advice)}")
    if recipient.retried_until is not None:
        words.append(f"    It is tried until {header.date_value(recipient.retried_until)}.")
    return words


def _delivery_status(report: Report) -> bytes:
    """The part for programs (RFC 3464 section 2)."""
    lines = [f"Reporting-MTA: dns; {report.hostname}"]
    if report.envid:
        lines.append(f"Original-Envelope-Id: {_one_line(_from_xtext(report.envid))}")
    lines.append(f"Arrival-Date: {header.date_value(report.accepted)}")
    for recipient in report.recipients:
        lines += ["", *_status(recipient)]
    text = "\r\n".join(lines) + "\r\n"
    return b"Content-Type: message/delivery-status\r\n\r\n" + text.encode("ascii", "replace")


def _status(recipient: ReportedRecipient) -> list[str]:
    lines = []
    if recipient.orcpt:
        kind, _, address = recipient.orcpt.partition(";")
        lines.append(f"Original-Recipient: {kind}; {_one_line(_from_xtext(address))}")
    lines.append(f"Final-Recipient: {_typed(recipient.address)}")
    lines.append(f"Action: {recipient.action}")
    lines.append(f"Status: {recipient.status or '4.0.0'}")
    if recipient.remote_host:
        lines.append(f"Remote-MTA: dns; {_one_line(recipient.remote_host.partition(' ')[0])}")
        if recipient.reply:
            lines += _folded(f"Diagnostic-Code: smtp; {_one_line(recipient.reply)}")
    elif recipient.reply:
        lines += _folded(f"Diagnostic-Code: x-postroom; {_one_line(recipient.reply)}")
    if recipient.last_attempt is not None:
        lines.append(f"Last-Attempt-Date: {header.date_value(recipient.last_attempt)}")
    if recipient.retried_until is not None:
        lines.append(f"Will-Retry-Until: {header.date_value(recipient.retried_until)}")
    return lines


def _typed(address: Address) -> str:
    if address.isascii():
        return f"rfc822; {address}"
    # RFC 6533 section 3: utf-8-addr-xtext, which fits into a message/delivery-status of ASCII.
    return "utf-8; " + "".join(c if "!" <= c <= "~" and c not in "\\+=" else f"\\x{{{ord(c):X}}}" for c in address)


def _folded(line: str) -> list[str]:
    """`line` cut at spaces into lines of at most 78 characters where it can be (RFC 5322 section 2.2.3)."""
    lines, rest = [], line
    while len(rest) > 78 and (at := rest.rfind(" ", 1, 78)) > 0 and rest[:at].strip():
        lines.append(rest[:at])
        rest = rest[at:]
    return [*lines, rest]


def _returned(report: Report) -> bytes:
    """The message that it is about, or its head (RFC 3461 section 6.2)."""
    if report.body is not None:
        eight_bit = not (report.head.isascii() and report.body.isascii())
        coding = b"Content-Transfer-Encoding: 8bit\r\n" if eight_bit else b""
        return b"Content-Type: message/rfc822\r\n" + coding + b"\r\n" + report.head + report.body
    head = report.head.removesuffix(b"\r\n")
    if head.isascii() and max(map(len, head.split(b"\r\n"))) <= 998:
        return b"Content-Type: text/rfc822-headers\r\n\r\n" + head
    fields = (
        b'Content-Type: text/rfc822-headers; charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n'
    )
    return fields + binascii.b2a_qp(_LINE_END.sub(b"\n", head), istext=True).replace(b"\n", b"\r\n")


def _from_xtext(text: str) -> str:
    """What xtext stands for (RFC 3461 section 4)."""
    return _XTEXT.sub(lambda found: chr(int(found[1], 16)), text)


def _one_line(text: str) -> str:
    return _NOT_TEXT.sub(" ", text[:_REPLY_CHARACTERS]).strip()
