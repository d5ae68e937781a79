"""`relay.max_reply_line_bytes` and `relay.max_reply_bytes` reach every connection; what passes them ends it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.account import AccountKind
from postroom.model.application import Application
from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.submission import Door, Submission
from tests.smarthost import Behaviour, Smarthost

SHORT_LINES = Behaviour(offers=tuple(f"X{n:090}" for n in range(7)))
LONG_LINE = Behaviour(offers=("X" * 600, "SIZE"))


@pytest.mark.parametrize(
    ("relay", "behaviour", "told"),
    [
        ({"max_reply_bytes": 600}, SHORT_LINES, "a reply of more than 600 octets"),
        ({"max_reply_line_bytes": 512}, LONG_LINE, "a reply line of more than 512 octets"),
        ({}, SHORT_LINES, ""),
        ({}, LONG_LINE, ""),
    ],
)
async def test_a_relay_that_says_more_is_the_accounts_trouble(
    tmp_path: Path, relay: dict[str, int], behaviour: Behaviour, told: str
) -> None:
    smarthost = Smarthost(behaviour)
    await smarthost.start()
    gateway = await Gateway.open(Settings.load(tmp_path, hostname="gateway.example.test", relay=relay))
    try:
        account = {"name": "relay", "kind": AccountKind.SMTP, "host": "127.0.0.1", "port": smarthost.port}
        await gateway.accounts.add({**account, "security": "none"})
        await gateway.start()
        await gateway.submit(a_message())
        if told:
            status = await until_asleep(gateway)
            assert told in status["reason"] and told in status["transcript"]
        else:
            assert await gateway.wait_drained()
    finally:
        await gateway.stop()
        await smarthost.stop()
    assert len(smarthost.taken) == (0 if told else 1)


def a_message() -> Submission:
    """A small one."""
    return Submission(
        door=Door.SMTP,
        application=Application(id=1, name="erp", senders=("*",)),
        envelope=Envelope("a@x.test", ("b@y.test",)),
        content=Content(b"From: a@x.test\r\nSubject: hi\r\n\r\n", b"hello\r\n"),
        received=datetime.now(UTC),
        peer="127.0.0.1",
    )


async def until_asleep(gateway: Gateway) -> dict[str, Any]:
    """The account's status, once it sleeps."""
    while True:
        status = await gateway.answers.status()
        accounts = status["accounts"]
        assert isinstance(accounts, list)
        if accounts[0]["health"] != "healthy":
            found: dict[str, Any] = accounts[0]
            return found
