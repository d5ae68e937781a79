"""A login that a relay refuses is the account's failure: mail waits with the advice, its tries untouched."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from postroom.gateway import Gateway
from postroom.model.queue import MessageId
from tests.flow.gateways import account_at, delivering, hello
from tests.smarthost import Behaviour, Smarthost


@pytest.fixture
async def smarthost() -> AsyncIterator[Smarthost]:
    """A relay; its answers to AUTH are the test's."""
    relay = Smarthost(Behaviour())
    await relay.start()
    yield relay
    await relay.stop()


@pytest.fixture
async def gateway(tmp_path: Path, smarthost: Smarthost) -> AsyncIterator[Gateway]:
    """A gateway whose account has a password that may go in clear; delivering."""
    login = {"username": "erp", "password": "hunter2", "allow_clear_password": True}
    async with delivering(tmp_path, account_at(smarthost, **login)) as gateway:
        yield gateway


async def submitted(gateway: Gateway) -> MessageId:
    """A message for the relay."""
    accepted = await gateway.submit(hello(gateway))
    return accepted.id


async def account_that(gateway: Gateway, health: str) -> dict[str, Any]:
    """The account, once it is `health`; pytest's limit is the patience."""
    while True:
        rows: Any = (await gateway.answers.status())["accounts"]
        found: dict[str, Any] = rows[0]
        if found["health"] == health:
            return found


@pytest.mark.parametrize(
    ("offers", "reply", "reason", "advice", "mend"),
    [
        ("AUTH PLAIN", "535 5.7.8 no", "auth: 535 5.7.8 no", "check the user name and the password",
         {"password": "better"}),
        ("AUTH GSSAPI", "", "(offered: GSSAPI); choose none if it needs no login", "choose no authentication",
         {"username": None}),
        ("AUTH SCRAM-SHA-256", "235 2.7.0 welcome", "without proof that it knows the password", "look who answers",
         {"mechanism": "plain"}),
        ("AUTH PLAIN", "334 bW9yZT8=", "asks for more than PLAIN has", "set another mechanism", None),
    ],
)  # fmt: skip
async def test_mail_waits_for_a_login(
    gateway: Gateway, smarthost: Smarthost, offers: str, reply: str, reason: str, advice: str, mend: Any
) -> None:
    smarthost.behaviour.offers = (offers,)
    smarthost.behaviour.replies = {"AUTH": reply, "*": "501 5.7.0 cancelled"}
    message = await submitted(gateway)
    # What may be a passing fault of the relay makes the account sleep only.
    failed = await account_that(gateway, "needs attention" if mend is not None else "sleeping")
    assert reason in failed["reason"]
    (why,) = await gateway.answers.why(message)
    assert reason in why.reason and advice in why.advice
    view = await gateway.store.message(message)
    assert view is not None
    assert [(row.state.value, row.tries) for row in view.deliveries] == [("queued", 0)]
    assert not any(command.startswith("MAIL") for command in smarthost.commands)
    if mend is not None:
        smarthost.behaviour.offers = ("AUTH PLAIN",)
        smarthost.behaviour.replies = {"AUTH": "235 2.7.0 welcome"}
        await gateway.accounts.edit("relay", mend)
        assert await gateway.wait_drained()
        assert [taken.recipients for taken in smarthost.taken] == [["b@y.test"]]


def database(folder: Path) -> bytes:
    """All that is stored."""
    return b"".join(file.read_bytes() for file in folder.glob("postroom.db*"))


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "CONTENT"])
async def test_what_a_relay_repeats_of_a_login_in_a_transaction_is_hidden(
    gateway: Gateway, smarthost: Smarthost, tmp_path: Path, command: str
) -> None:
    response = base64.b64encode(b"\0erp\0hunter2").decode()
    smarthost.behaviour.offers = ("AUTH PLAIN",)
    smarthost.behaviour.replies = {command: f"550 5.7.1 who is {response} with hunter2?"}
    message = await submitted(gateway)
    while not (view := await gateway.store.message(message)) or not view.deliveries[0].reply:
        await asyncio.sleep(0)
    assert "550 5.7.1 who is [hidden] with [hidden]?" in view.deliveries[0].reply
    written = database(tmp_path)
    assert b"[hidden]" in written
    for secret in ("hunter2", response):
        assert secret not in str(view) and secret.encode() not in written
