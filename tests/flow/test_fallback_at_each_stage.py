"""For each stage at which a relay can fail: whether the next account takes the mail, and that it arrives once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postroom.gateway import Gateway
from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.submission import Door, Submission
from tests.flow.gateways import account_at, delivering
from tests.smarthost import Behaviour, Smarthost

SENDER_REFUSED = "553 5.7.1 Sender address rejected: not owned by auth user."

#: What the first relay does, and in which order the second one is asked: nothing of the message can be at the first.
SWITCHES = {
    "greeting refused": Behaviour(replies={"GREETING": "554 5.3.2 no service here"}),
    "greeting puts off": Behaviour(replies={"GREETING": "421 4.3.2 shutting down"}),
    "EHLO and HELO refused": Behaviour(replies={"EHLO": "550 5.7.1 no", "HELO": "550 5.7.1 no"}),
    "closed after EHLO": Behaviour(close_after="EHLO"),
    "no login offered": Behaviour(offers=("8BITMIME",)),
    "login refused": Behaviour(offers=("AUTH PLAIN",), replies={"AUTH": "535 5.7.8 wrong password"}),
    "MAIL refused": Behaviour(replies={"MAIL": "530 5.7.0 authentication required"}),
    "sender refused at MAIL": Behaviour(replies={"MAIL": SENDER_REFUSED}),
    "sender refused at RCPT": Behaviour(replies={"RCPT": SENDER_REFUSED}),
    "sender refused at DATA": Behaviour(replies={"DATA": SENDER_REFUSED}),
    "sender refused after the content": Behaviour(replies={"CONTENT": SENDER_REFUSED}),
}

#: What the first relay does, and how the delivery is then: the message's own affair, or nobody knows who has it.
STAYS = {
    "recipient unknown": (Behaviour(replies={"RCPT": "550 5.1.1 no such user"}), "bounced"),
    "recipient put off": (Behaviour(replies={"RCPT": "450 4.7.1 greylisted"}), "deferred"),
    "DATA put off": (Behaviour(replies={"DATA": "451 4.3.0 not now"}), "deferred"),
    "content refused": (Behaviour(replies={"CONTENT": "554 5.6.0 not this"}), "bounced"),
    "content put off": (Behaviour(replies={"CONTENT": "451 4.3.0 disk"}), "deferred"),
    "closed without a reply to the content": (Behaviour(close_after="CONTENT"), "deferred"),
}


@pytest.fixture
async def first() -> AsyncIterator[Smarthost]:
    """The relay of the first account."""
    relay = Smarthost(Behaviour())
    await relay.start()
    yield relay
    await relay.stop()


@pytest.fixture
async def second() -> AsyncIterator[Smarthost]:
    """The relay of the second account."""
    relay = Smarthost(Behaviour())
    await relay.start()
    yield relay
    await relay.stop()


@pytest.fixture
async def gateway(tmp_path: Path, first: Smarthost, second: Smarthost) -> AsyncIterator[Gateway]:
    """Two accounts that fall back at once; delivering."""
    fields = {"fall_back_after": "0s", "connect_retry": "1h"}
    accounts = [account_at(first, **fields) | {"name": "first"}, account_at(second, **fields) | {"name": "second"}]
    async with delivering(tmp_path, *accounts) as gateway:
        yield gateway


def _submission(gateway: Gateway) -> Submission:
    return Submission(
        door=Door.SMTP,
        application=gateway.applications.get("erp"),
        envelope=Envelope("a@x.test", ("b@y.test",)),
        content=Content(b"From: a@x.test\r\nSubject: hi\r\n\r\n", b"hello\r\n"),
        received=datetime.now(UTC),
        peer="127.0.0.1",
    )


@pytest.mark.parametrize("stage", SWITCHES)
async def test_the_next_account_takes_it_and_it_arrives_once(
    gateway: Gateway, first: Smarthost, second: Smarthost, stage: str
) -> None:
    first.behaviour = SWITCHES[stage]
    if "login" in stage:
        login = {"username": "me", "password": "secret", "allow_clear_password": True}
        await gateway.accounts.edit("first", login)
    accepted = await gateway.submit(_submission(gateway))
    assert await gateway.wait_drained()
    assert (len(first.taken), len(second.taken)) == (0, 1)
    view = await gateway.store.message(accepted.id)
    assert view is not None
    assert [row.state.value for row in view.deliveries] == ["delivered"]
    assert [event.account for event in view.events if event.kind == "rerouted"] == ["second"]


async def test_a_host_that_is_down_is_passed_over_and_takes_the_next_mail_when_it_is_up(
    gateway: Gateway, first: Smarthost, second: Smarthost
) -> None:
    await first.stop()
    await gateway.submit(_submission(gateway))
    assert await gateway.wait_drained()
    assert len(second.taken) == 1
    await first.start()
    await gateway.scheduler.wake(gateway.accounts.get("first"))
    await gateway.submit(_submission(gateway))
    assert await gateway.wait_drained()
    assert (len(first.taken), len(second.taken)) == (1, 1)


@pytest.mark.parametrize("stage", STAYS)
async def test_it_stays_with_its_account(gateway: Gateway, first: Smarthost, second: Smarthost, stage: str) -> None:
    first.behaviour, state = STAYS[stage]
    accepted = await gateway.submit(_submission(gateway))
    message = None
    while message is None or not message.attempts:
        message = await gateway.store.message(accepted.id)
    assert [row.state.value for row in message.deliveries] == [state]
    await gateway.scheduler.diverter.turn()
    assert second.commands == []
    view = await gateway.store.message(accepted.id)
    assert view is not None
    assert [row.lane for row in view.deliveries] == [gateway.accounts.get("first").id]
