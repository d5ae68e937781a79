"""Reports as programs of others read them: the standard library's parser, and flufl.bounce for who failed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message

from flufl.bounce import all_failures


@dataclass(frozen=True)
class ReadReport:
    """A report taken apart: its fields, the words for people, and the blocks of the delivery status."""

    message: Message
    words: str
    about: Message
    recipients: list[Message]
    returned: Message

    @property
    def actions(self) -> list[tuple[str, str, str]]:
        """Final recipient, action and status of each recipient."""
        return [
            (str(block["Final-Recipient"]), str(block["Action"]), str(block["Status"])) for block in self.recipients
        ]


def read_report(raw: bytes) -> ReadReport:
    """Read a report, and assert what holds of every one."""
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", raw)
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    message = message_from_bytes(raw)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["Auto-Submitted"] == "auto-replied"
    parts = message.get_payload()
    assert isinstance(parts, list)
    words, status, returned = parts
    assert isinstance(words, Message)
    assert isinstance(status, Message)
    assert isinstance(returned, Message)
    assert status.get_content_type() == "message/delivery-status"
    assert [part.get_content_type() for part in (message, *parts, *status.get_payload()) if part.defects] == []
    blocks = [block for block in status.get_payload() if isinstance(block, Message)]
    text = words.get_payload(decode=True)
    assert isinstance(text, bytes)
    found = ReadReport(message, text.decode(), blocks[0], blocks[1:], returned)
    assert all_failures(message) == (_told(found, "delayed"), _told(found, "failed"))
    return found


def _told(report: ReadReport, action: str) -> frozenset[bytes]:
    """What flufl.bounce should find: addresses of type rfc822, the original one first."""
    addresses = set()
    for block in report.recipients:
        if block["Action"] == action:
            kind, _, address = str(block["Original-Recipient"] or block["Final-Recipient"]).partition("; ")
            if kind == "rfc822":
                addresses.add(address.encode())
    return frozenset(addresses)
