"""Every limit of the SMTP door is a setting: lowered, it is met earlier."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import pytest

from postroom.submission import clients as clients_module
from tests.submission_door import Applications, KeepingGateway, RawClient, listening, until

BEGIN = [b"EHLO c.test", b"MAIL FROM:<a@b.test>", b"RCPT TO:<c@d.test>"]
WRONG = b"AUTH PLAIN " + b64encode(b"\0erp\0wrong")
CONTENT = b"x-y: 0123456789\r\n" * 100 + b"\r\nbody\r\n."


@pytest.mark.parametrize(
    ("name", "low", "lines", "reply"),
    [
        ("max_size_bytes", "1KiB", [*BEGIN, b"DATA", CONTENT], b"552 5.3.4 "),
        ("max_size_bytes", "1KiB", [b"EHLO c.test", b"MAIL FROM:<a@b.test> SIZE=1025"], b"552 5.3.4 "),
        ("max_size_bytes", "1KiB", [*BEGIN, b"BDAT 1025 LAST\r\n" + b"x" * 1023], b"552 5.3.4 "),
        ("max_header_bytes", "1KiB", [*BEGIN, b"DATA", CONTENT], b"552 5.3.4 "),
        ("max_recipients", 2, [*BEGIN, b"RCPT TO:<c2@d.test>", b"RCPT TO:<c3@d.test>"], b"452 4.5.3 "),
        ("max_errors", 1, [b"FOO", b"NOOP"], b"421 4.7.0 Too many errors"),
        ("max_auth_failures", 2, [b"EHLO c.test", WRONG, WRONG], b"421 4.7.0 Too many failed logins"),
        ("max_login_failures_per_minute", 1, [b"EHLO c.test", WRONG, WRONG], b"421 4.7.0 Too many failed logins"),
        ("command_line_bytes", 600, [b"NOOP " + b"x" * 600], b"500 5.5.2 Line too long"),
        ("auth_line_bytes", 5000, [b"EHLO c.test", b"AUTH PLAIN " + b"A" * 5000], b"500 5.5.2 Line too long"),
    ],
)
async def test_a_lower_limit_is_met_earlier(name: str, low: Any, lines: list[bytes], reply: bytes) -> None:
    said = {}
    for settings in ({}, {name: low}):
        gateway = KeepingGateway(applications=Applications(passwordless=WRONG not in lines))
        async with listening(gateway, **settings) as door:
            client = await RawClient.connect(door)
            for line in lines:
                said[bool(settings)] = await client.ask(line)
            client.close()
    assert said[True].startswith(reply)
    assert not said[False].startswith(reply)


async def test_idle_timeout() -> None:
    gateway = KeepingGateway()
    async with listening(gateway, idle_timeout="20s") as door:
        client = await RawClient.connect(door)
        gateway.clock.advance(19)
        assert await client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        gateway.clock.advance(21)
        assert await client.reply() == b"421 4.4.2 Idle for too long\r\n"
        assert await client.is_closed()


async def trickle(client: RawClient, gateway: KeepingGateway, begin: list[bytes], piece: bytes) -> int:
    """Send `piece` every 10 seconds of the clock; after how many seconds the content is refused."""
    for line in begin:
        assert (await client.ask(line))[:1] in b"23"
    refused = asyncio.ensure_future(client.reply())
    elapsed = 0
    while True:
        client.writer.write(piece)
        for _ in range(20):
            await asyncio.sleep(0)
        gateway.clock.advance(10)
        elapsed += 10
        for _ in range(20):
            await asyncio.sleep(0)
        if refused.done():
            assert refused.result() == b"421 4.4.2 The content takes too long\r\n"
            assert await client.is_closed()
            return elapsed
        assert elapsed < 10_000


@pytest.mark.parametrize(
    ("settings", "elapsed"),
    [
        ({}, 610),
        ({"content_timeout": "1m"}, 70),
        ({"content_timeout": "1m", "content_rate_bytes": 10}, 120),
    ],
)
async def test_content_timeout_and_rate(settings: dict[str, Any], elapsed: int) -> None:
    gateway = KeepingGateway()
    async with listening(gateway, **settings) as door:
        client = await RawClient.connect(door)
        took = await trickle(client, gateway, [*BEGIN, b"DATA"], b"x" * 48 + b"\r\n")
    assert abs(took - elapsed) <= 10
    assert gateway.submissions == []


@pytest.mark.parametrize("recipient", [b"RCPT TO:<c@d.test>", b"NOOP"], ids=["in order", "out of order"])
async def test_a_chunk_has_the_deadline_of_content(recipient: bytes) -> None:
    gateway = KeepingGateway()
    async with listening(gateway, content_timeout="1m") as door:
        client = await RawClient.connect(door)
        client.writer.write(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n" + recipient + b"\r\nBDAT 99999 LAST\r\n")
        for _ in range(3):
            await client.reply()
        took = await trickle(client, gateway, [], b"x")
    assert took in (60, 70)
    assert gateway.submissions == []


async def test_chunks_have_one_deadline_together() -> None:
    gateway = KeepingGateway()
    async with listening(gateway, content_timeout="1m") as door:
        client = await RawClient.connect(door)
        for line in BEGIN:
            await client.ask(line)
        said = b""
        for _ in range(10):
            client.writer.write(b"BDAT 3\r\nx\r\n")
            said = await client.reply()
            if said.startswith(b"421"):
                break
            assert said == b"250 2.0.0 3 octets received\r\n"
            gateway.clock.advance(10)
        assert said == b"421 4.4.2 The content takes too long\r\n"
        assert await client.is_closed()


async def test_after_chunks_taken_back_the_clock_of_content_stands() -> None:
    gateway = KeepingGateway()
    async with listening(gateway, content_timeout="1m") as door:
        client = await RawClient.connect(door)
        for line in [*BEGIN, b"BDAT 3\r\nx", b"RSET"]:
            assert (await client.ask(line)).startswith(b"250")
        for _ in range(20):
            gateway.clock.advance(10)
            assert await client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        client.close()


async def test_max_login_failures_per_minute_counts_by_name_over_addresses() -> None:
    gateway = KeepingGateway(applications=Applications(passwordless=False))
    async with listening(gateway, max_login_failures_per_minute=3) as door:
        for _ in range(3):
            client = await RawClient.connect(door)
            await client.ask(b"EHLO c.test")
            assert (await client.ask(WRONG)).startswith(b"535 ")
            client.close()
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        assert (await client.ask(WRONG)).startswith(b"421 4.7.0 ")
        assert await client.is_closed()
        gateway.clock.advance(61)
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        assert (await client.ask(WRONG)).startswith(b"535 ")
        client.close()


async def test_max_connections_per_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients_module, "is_loopback", lambda peer_ip: False)
    async with listening(KeepingGateway(), max_connections_per_client=1) as door:
        first = await RawClient.connect(door)
        second = await RawClient.connect(door, greeting=b"421 4.7.0 ")
        assert await second.is_closed()
        first.close()
        await until(lambda: not door.connections)
        third = await RawClient.connect(door)
        third.close()
