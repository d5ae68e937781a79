"""Recipients of whom a relay says that they do not exist go on the suppression list, where that is switched on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from postroom.gateway import Gateway
from postroom.model.queue import MessageId
from postroom.model.submission import Door
from tests.flow.gateways import account_at, delivering, hello
from tests.smarthost import Behaviour, Smarthost

GONE = "550 5.1.1 <gone@y.test>: Recipient address rejected: User unknown"
REPLIES = {
    "RCPT TO:<Gone@y.test>": GONE,
    "RCPT TO:<*@y.test>": GONE,
    "RCPT TO:<full@y.test>": "552 5.2.2 mailbox full",
    "RCPT TO:<policy@y.test>": "550 5.7.1 blocked by policy",
}
ALL = ("Gone@y.test", "full@y.test", "policy@y.test", "b@y.test")


@pytest.fixture
async def smarthost() -> AsyncIterator[Smarthost]:
    """A relay that refuses some."""
    relay = Smarthost(Behaviour(replies=REPLIES))
    await relay.start()
    yield relay
    await relay.stop()


@pytest.fixture
async def gateway(tmp_path: Path, smarthost: Smarthost) -> AsyncIterator[Gateway]:
    """A gateway with an application that applies the list; delivering."""
    async with delivering(tmp_path, account_at(smarthost), apply_suppressions=True) as gateway:
        yield gateway


async def sent(gateway: Gateway, *recipients: str) -> tuple[MessageId, list[str]]:
    """A message that has ended, and how."""
    accepted = await gateway.submit(replace(hello(gateway, *recipients), door=Door.REST))  # which gets no reports
    assert await gateway.wait_drained()
    view = await gateway.store.message(accepted.id)
    assert view is not None
    return accepted.id, [row.state.value for row in view.deliveries]


async def test_who_does_not_exist_is_not_asked_for_again(gateway: Gateway, smarthost: Smarthost) -> None:
    await gateway.configuration.change({"suppress_hard_bounces": True})
    message, states = await sent(gateway, *ALL)
    assert states == ["bounced", "bounced", "bounced", "delivered"]
    (entry,) = await gateway.suppressions.page()
    assert (entry.key, entry.source, entry.message_id) == ("gone@y.test", "hard-bounce", message)
    assert entry.reason == GONE
    assert entry.expires is not None
    assert entry.expires - entry.created == timedelta(days=90)
    smarthost.commands.clear()
    _, states = await sent(gateway, *ALL)
    assert states == ["bounced", "bounced", "bounced", "delivered"]
    asked = [command for command in smarthost.commands if command.startswith("RCPT")]
    assert sorted(asked) == ["RCPT TO:<b@y.test>", "RCPT TO:<full@y.test>", "RCPT TO:<policy@y.test>"]


async def test_nobody_goes_on_the_list_unless_it_is_switched_on(gateway: Gateway) -> None:
    await sent(gateway, *ALL)
    assert list(await gateway.suppressions.page()) == []
    await gateway.configuration.change({"suppress_hard_bounces": True, "suppress_hard_bounces_for": "0s"})
    await sent(gateway, *ALL)
    (entry,) = await gateway.suppressions.page()
    assert (entry.key, entry.expires) == ("gone@y.test", None), "until somebody takes it off"


async def test_an_address_that_reads_as_a_whole_domain_goes_on_no_list(gateway: Gateway) -> None:
    await gateway.configuration.change({"suppress_hard_bounces": True})
    assert (await sent(gateway, "*@y.test"))[1] == ["bounced"]
    assert list(await gateway.suppressions.page()) == []
