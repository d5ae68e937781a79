"""Gateways in process, and what they are given to send."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.submission import Door, Submission
from tests.smarthost import Smarthost


@asynccontextmanager
async def delivering(folder: Path, *accounts: Mapping[str, Any], **application: Any) -> AsyncIterator[Gateway]:
    """One that delivers, by these accounts, for an application `erp` that may send as anyone; it listens nowhere."""
    gateway = await Gateway.open(Settings.load(folder, hostname="gateway.example.test", smtp={"listeners": []}))
    for account in accounts:
        await gateway.accounts.add(account)
    await gateway.applications.add({"name": "erp", "senders": "*", **application})
    await gateway.start()
    yield gateway
    await gateway.stop()


def account_at(relay: Smarthost, **fields: Any) -> dict[str, Any]:
    """The account `relay`, which sends by it in clear."""
    return {"name": "relay", "host": "127.0.0.1", "port": relay.port, "security": "none", **fields}


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
