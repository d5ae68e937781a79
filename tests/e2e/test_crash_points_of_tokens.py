"""Crash points of a refresh (R1, R2): what was committed is used, and what was not costs a consent at most, no mail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroom.crashing import EXIT_STATUS
from tests.conftest import Served
from tests.smarthost import Behaviour, Smarthost
from tests.tls_relay import pem, served
from tests.token_desk import TokenDesk, xoauth2

AUTHORITY = trustme.CA()


async def crashed_while_refreshing(
    serve: Callable[..., Served], tmp_path: Path, desk: TokenDesk, relay: Smarthost, point: str
) -> None:
    """A gateway with an account that has consented, whose first refresh ends at `point`; one message waits."""
    files = {"ca": pem(AUTHORITY), "token": "r1"}
    for name, text in files.items():
        await asyncio.to_thread((tmp_path / name).write_text, text)
    gateway = await asyncio.to_thread(serve, POSTROOM_CRASH_AT=point)
    fields: dict[str, Any] = desk.account(host="localhost", port=relay.port, security="tls")
    options = [part for name, value in fields.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    secret = ["--ca-bundle", str(tmp_path / "ca"), "--oauth-refresh-token-file", str(tmp_path / "token")]
    add = ["accounts", "add", "relay", *options, *secret, "--for", "local", "--allow-sender", "*"]
    await asyncio.to_thread(gateway.run, *add)
    send = ["send", "--from", "ann@x.test", "--to", "bob@y.test", "--subject", "hi", "--text", "hello"]
    await asyncio.to_thread(gateway.run, *send, check=False)  # the crash may cut its answer off
    assert await asyncio.to_thread(gateway.process.wait, 60) == EXIT_STATUS
    assert [asked.form["refresh_token"] for asked in desk.asked] == ["r1"] and not relay.taken


async def taken(relay: Smarthost) -> list[str]:
    """The recipients of what the relay took, once there is something; pytest's limit is the patience."""
    while not relay.taken:
        await asyncio.sleep(0.01)
    return [recipient for one in relay.taken for recipient in one.recipients]


@pytest.mark.parametrize(("point", "keeps_the_former"), [("R1:1", True), ("R1:1", False), ("R2:1", False)])
async def test_r1_r2_a_refresh_that_is_cut_short_loses_no_mail(
    serve: Callable[..., Served], tmp_path: Path, point: str, keeps_the_former: bool
) -> None:
    """Servers differ: most let the former refresh token go on, some take its second use for a theft."""
    knows = {xoauth2(f"a{n}"): "235 2.7.0 welcome" for n in (1, 2)}
    behaviour = Behaviour(offers=("AUTH XOAUTH2",), replies=knows | {"AUTH": "535 5.7.8 no"})
    relay = Smarthost(behaviour, context=served(AUTHORITY.issue_cert("localhost")))
    await relay.start()
    async with TokenDesk() as desk:
        await crashed_while_refreshing(serve, tmp_path, desk, relay, point)
        if keeps_the_former:
            desk.refresh_token = "r1"
        again = await asyncio.to_thread(serve, tmp_path / "data")
        if point == "R1:1" and not keeps_the_former:
            while "needs attention" not in (await asyncio.to_thread(again.run, "accounts", "show", "relay")).stdout:
                assert again.process.poll() is None
            assert not relay.taken
            desk.refresh_token = "r9"  # somebody consents anew
            await asyncio.to_thread((tmp_path / "token").write_text, "r9")
            await asyncio.to_thread(
                again.run, "accounts", "edit", "relay", "--oauth-refresh-token-file", str(tmp_path / "token")
            )
        assert await taken(relay) == ["bob@y.test"]
        if point == "R2:1":
            assert len(desk.asked) == 1 and xoauth2("a1") in relay.commands
        assert await asyncio.to_thread(again.stop) == 0
    await relay.stop()
