"""Gateways in process: what they are given to send."""

from __future__ import annotations

from datetime import UTC, datetime

from postroom.gateway import Gateway
from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.submission import Door, Submission


def hello(gateway: Gateway, *recipients: str) -> Submission:
    """A short message of the application `erp`, not yet taken."""
    return Submission(
        door=Door.SMTP,
        application=gateway.applications.get("erp"),
        envelope=Envelope("a@x.test", recipients or ("b@y.test",)),
        content=Content(b"From: a@x.test\r\nSubject: hi\r\n\r\n", b"hello\r\n"),
        received=datetime.now(UTC),
        peer="127.0.0.1",
    )
