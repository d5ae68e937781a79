"""An account that asks for what this release can't do: its mail is taken, waits with the reason, and then goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from postroom.diagnosis.check import check
from postroom.errors import Refused
from postroom.gateway import Gateway
from tests.flow.gateways import account_at, delivering, hello
from tests.smarthost import Behaviour, Smarthost

REASON = "this release keeps but cannot obey yet: template_cache"


@pytest.fixture
async def smarthost() -> AsyncIterator[Smarthost]:
    """A relay that takes everything."""
    relay = Smarthost(Behaviour())
    await relay.start()
    yield relay
    await relay.stop()


@pytest.fixture
async def gateway(tmp_path: Path, smarthost: Smarthost) -> AsyncIterator[Gateway]:
    """A gateway whose account shall keep no templates; delivering."""
    async with delivering(tmp_path, account_at(smarthost, template_cache=0)) as gateway:
        yield gateway


async def _health(gateway: Gateway) -> dict[str, Any]:
    rows: Any = (await gateway.answers.status())["accounts"]
    found: dict[str, Any] = rows[0]
    return found


async def test_mail_waits_with_the_reason_and_goes_when_the_account_can_be_obeyed(
    gateway: Gateway, smarthost: Smarthost
) -> None:
    before = await _health(gateway)
    assert (before["health"], before["reason"]) == ("needs attention", REASON), "told before any mail came"
    accepted = await gateway.submit(hello(gateway))
    (why,) = await gateway.answers.why(accepted.id)
    assert why.state.value == "queued"
    assert REASON in why.reason
    assert "--reset template_cache" in why.advice
    findings = await check(gateway.settings, gateway.accounts.snapshot(), (), {}, is_running=True)
    assert next(one.what for one in findings if one.subject == "account relay") == f"does not send: {REASON}"
    assert smarthost.taken == []
    await gateway.accounts.edit("relay", {"template_cache": None})
    assert await gateway.wait_drained()
    assert [taken.recipients for taken in smarthost.taken] == [["b@y.test"]]
    assert (await _health(gateway))["health"] == "healthy"


async def test_an_application_that_asks_for_what_is_not_built_is_refused_for_the_time_being(gateway: Gateway) -> None:
    await gateway.applications.edit("erp", {"header_doors": "template"})
    with pytest.raises(Refused, match="cannot obey yet: header_doors") as refused:
        await gateway.submit(hello(gateway))
    assert (refused.value.reply_code, refused.value.status) == (451, "4.3.5")
    await gateway.applications.edit("erp", {"header_doors": None})
    assert (await gateway.submit(hello(gateway))).accounts == ("relay",)
