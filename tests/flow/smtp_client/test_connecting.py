"""Ways in which no connection comes about, or none that is of use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from postroom.model.account import AddressFamily
from postroom.net.smtp_client import ConnectFailed, connect
from tests.flow.smtp_client.talk import Line, Relay, commands, hang_up, open_to, start


@pytest.mark.parametrize("after", ["greeting", "EHLO", "MAIL", "content"])
async def test_silence_ends_at_its_deadline(after: str) -> None:
    async def talk(line: Line) -> None:
        if after != "greeting":
            if after == "EHLO":
                line.say("220 relay.test")
            else:
                await line.greet("PIPELINING")
            if after == "content":
                await line.expect(*commands(0))
                line.say("250 ok", "250 ok", "354 go")
                await line.content()
                line.say("250-part of a")  # is not a reply
        await line.end()

    soon = timedelta(milliseconds=60)
    async with Relay(talk) as relay:
        fields = {"command_timeout": soon if after != "content" else timedelta(hours=1), "end_of_data_timeout": soon}
        if after in ("greeting", "EHLO"):
            with pytest.raises(ConnectFailed) as failed:
                await open_to(relay, **fields)
            assert (failed.value.stage, failed.value.kind) == (after.lower(), "network")
            return
        result = await start(await open_to(relay, **fields), 0)
        assert result.error_kind == "timeout"
        assert result.content_written == (after == "content")


@pytest.mark.parametrize(
    ("said", "stage", "kind"),
    [
        ("554 5.7.1 go away", "greeting", "reply"),
        ("421 4.3.2 not now", "greeting", "reply"),
        ("SSH-2.0-OpenSSH_9.2", "greeting", "protocol"),
    ],
)
async def test_a_greeting_that_is_none_fails(said: str, stage: str, kind: str) -> None:
    async def talk(line: Line) -> None:
        line.say(said)
        await line.end()

    async with Relay(talk) as relay:
        with pytest.raises(ConnectFailed) as failed:
            await open_to(relay)
        assert (failed.value.stage, failed.value.kind) == (stage, kind)
        assert (failed.value.reply is not None) == (kind == "reply")


async def test_nobody_there_fails_at_its_stage(free_port: Callable[[], int]) -> None:
    async with Relay(hang_up) as relay:
        account = replace(relay.account(), port=free_port())

        async def none(host: str, port: int) -> list[Any]:
            raise OSError("no such name")

        with pytest.raises(ConnectFailed) as failed:
            await connect(account, helo_name="client.test", resolver=relay.resolve)
        assert (failed.value.stage, failed.value.kind) == ("connect", "network")
        with pytest.raises(ConnectFailed) as failed:
            await connect(account, helo_name="client.test", resolver=none)
        assert (failed.value.stage, failed.value.kind) == ("resolve", "network")


async def test_an_address_that_does_not_answer_gives_way_to_the_next(free_port: Callable[[], int]) -> None:
    async def talk(line: Line) -> None:
        await line.greet()
        await line.expect("QUIT")

    async with Relay(talk) as relay:
        closed = free_port()

        async def both(host: str, port: int) -> list[Any]:
            (good,) = await relay.resolve(host, port)
            return [(good[0], ("127.0.0.1", closed)), good]

        connection = await connect(relay.account(), helo_name="client.test", resolver=both)
        assert connection.remote_address == "127.0.0.1"
        await connection.quit()


async def test_a_connection_that_is_closed_as_soon_as_it_is_ready_is_a_failure() -> None:
    async def talk(line: Line) -> None:
        line.say("220 relay.test")
        await line.expect("EHLO client.test")
        line.say("250 relay.test", "421 4.3.2 on second thoughts")
        await line.end()

    async with Relay(talk) as relay:
        with pytest.raises(ConnectFailed, match="on second thoughts"):
            await open_to(relay)


async def test_a_reply_that_comes_octet_by_octet_is_no_progress() -> None:
    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        await line.drip()

    async with Relay(talk) as relay:
        connection = await open_to(relay, command_timeout=timedelta(milliseconds=80))
        assert (await start(connection, 0)).error_kind == "timeout"


async def test_a_connection_leaves_from_the_local_address_and_over_the_family_that_it_may_use() -> None:
    seen: list[str] = []

    async def talk(line: Line) -> None:
        seen.append(line.peer)
        await line.greet()
        await line.end()

    async with Relay(talk) as relay:
        (await open_to(relay, local_address="127.0.0.77")).leave()
        with pytest.raises(ConnectFailed, match="no IPv6 address") as failed:
            await open_to(relay, address_family=AddressFamily.IPV6)
        assert (failed.value.stage, failed.value.kind) == ("resolve", "network")
        with pytest.raises(ConnectFailed, match="192.0.2.77 is not an address of this machine") as failed:
            await open_to(relay, local_address="192.0.2.77")
        assert (failed.value.stage, failed.value.kind) == ("connect", "local-address")
    assert seen == ["127.0.0.77"]
