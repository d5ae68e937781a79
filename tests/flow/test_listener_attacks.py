"""Attacks and accidents where the connection matters: each costs its own connection, and the next client is served."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from postroom.model.content import INLINE_BYTES, StagedBody
from postroom.model.envelope import DsnRequest
from tests.submission_door import KeepingGateway, RawClient, listening, until

ACCEPTED = b"250 2.0.0 Ok: queued as 00000000-0000-0000-0000-000000000000\r\n"
BEGIN = b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
EIGHT_MB = 8 * 1024 * 1024


async def replies(client: RawClient, count: int) -> list[int]:
    return [int((await client.reply())[:3]) for _ in range(count)]


async def is_served(gateway: KeepingGateway, client: RawClient) -> bool:
    """Whether a message of this client is taken."""
    await client.begin()
    client.writer.write(b"x: y\r\n\r\n.\r\n")
    taken = await client.reply() == ACCEPTED
    client.close()
    return taken


@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"EHLO c.te",
        BEGIN + b"DATA\r\nhalf a mess",
        BEGIN + b"BDAT 1000 LAST\r\nhalf a ch",
        BEGIN + b"BDAT 10",
    ],
    ids=["nothing", "a command", "content", "a chunk", "an announcement"],
)
async def test_200_clients_that_stop_half_way_hold_up_nobody(half: bytes) -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        slow = [await RawClient.connect(door) for _ in range(200)]
        for client in slow:
            client.writer.write(half)
        assert await is_served(gateway, await RawClient.connect(door))
        assert len(gateway.submissions) == 1
        assert door.connections >= 200
        for client in slow:
            client.writer.transport.abort()
        await until(lambda: not door.connections)
    assert len(gateway.submissions) == 1


async def test_200_clients_that_go_on_octet_by_octet_all_arrive_in_order() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        slow = [await RawClient.connect(door) for _ in range(200)]
        wires = [BEGIN + b"DATA\r\nx: %03d\r\n\r\n.\r\n" % number for number in range(200)]
        for at in range(max(map(len, wires))):
            for client, wire in zip(slow, wires, strict=True):
                client.writer.write(wire[at : at + 1])
            await asyncio.sleep(0)
        for client in slow:
            assert await replies(client, 5) == [250, 250, 250, 354, 250]
            client.close()
    assert sorted(one.content.head for one in gateway.submissions) == [b"x: %03d\r\n\r\n" % n for n in range(200)]


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\nHost: mx.test\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 200\r\n\r\n" + BEGIN + b"DATA\r\nx: y\r\n\r\n.\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)),
    ],
    ids=["HTTP", "HTTP with mail in its body", "TLS"],
)
async def test_http_and_tls_hellos_are_told_so_and_closed(hello: bytes) -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        client.writer.write(hello)
        assert (await client.reply()).startswith(b"554 5.5.1 ")
        assert await client.is_closed()
        assert await is_served(gateway, await RawClient.connect(door))
    assert len(gateway.submissions) == 1


async def test_10_000_recipients_at_once_are_answered_in_order() -> None:
    gateway = KeepingGateway()
    async with listening(gateway, max_recipients=10_000) as door:
        client = await RawClient.connect(door)
        lines = b"".join(b"RCPT TO:<r%d@d.test>\r\n" % number for number in range(10_001))
        client.writer.write(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n" + lines + b"DATA\r\nx: y\r\n\r\n.\r\n")
        assert await replies(client, 10_005) == [250] * 10_002 + [452, 354, 250]
        client.close()
    assert gateway.submissions[0].envelope.recipients == tuple(f"r{number}@d.test" for number in range(10_000))


@pytest.mark.parametrize("begin", [b"DATA\r\n", b"BDAT 8388610 LAST\r\n"], ids=["DATA", "BDAT"])
async def test_content_of_8_mb_without_a_line_end_goes_to_the_store_as_it_comes(begin: bytes) -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        client.writer.write(BEGIN + begin)
        assert await replies(client, 3) == [250, 250, 250]
        if begin == b"DATA\r\n":
            assert await replies(client, 1) == [354]
        for _ in range(EIGHT_MB // 65536):
            client.writer.write(b"/" * 65536)
            await client.writer.drain()
        client.writer.write(b"\r\n.\r\n" if begin.startswith(b"DATA") else b"\r\n")
        assert await client.reply() == ACCEPTED
        client.close()
    body = gateway.submissions[0].content.body
    assert isinstance(body, StagedBody)
    assert body.size_bytes == EIGHT_MB + 2


@pytest.mark.parametrize("verb", [b"", b"NOOP ", b"MAIL FROM:<", b"\x00"])
async def test_a_command_of_8_mb_without_a_line_end_is_refused_and_not_kept(verb: bytes) -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        client.writer.write(verb)
        tracemalloc.start()
        for _ in range(EIGHT_MB // 65536):
            client.writer.write(b"A" * 65536)
            await client.writer.drain()
        client.writer.write(b"\r\nNOOP\r\n")
        assert await replies(client, 2) == [500, 250]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * 1024 * 1024  # of both sides of the connection
        client.close()


async def test_a_message_in_chunks_arrives_as_one_by_data() -> None:
    gateway = KeepingGateway()
    body = b"".join(b"%076d\r\n" % line for line in range(2 * INLINE_BYTES // 78))
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        client.writer.write(BEGIN)
        await replies(client, 3)
        whole = b"Subject: x\r\n\r\n" + body
        for at in range(0, len(whole), 50_000):
            piece = whole[at : at + 50_000]
            client.writer.write(b"BDAT %d\r\n" % len(piece) + piece)
            assert await client.reply() == b"250 2.0.0 %d octets received\r\n" % len(piece)
        assert await client.ask(b"BDAT 0 LAST") == ACCEPTED
        small = b"x: y\r\n\r\nsmall"
        client.writer.write(BEGIN + b"BDAT %d LAST\r\n" % len(small) + small + b"QUIT\r\n")
        assert await replies(client, 5) == [250, 250, 250, 250, 221]
        client.close()
    large, inline = gateway.submissions
    assert gateway.content(large.content) == whole
    assert isinstance(large.content.body, StagedBody)
    assert (inline.content.head, inline.content.body) == (b"x: y\r\n\r\n", b"small\r\n")


@pytest.mark.parametrize("back", [b"RSET", b"EHLO c.test"])
async def test_chunks_taken_back_are_in_no_message(back: bytes) -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        client.writer.write(
            BEGIN + b"BDAT 8\r\nold: 1\r\n" + back + b"\r\n" + BEGIN + b"BDAT 10 LAST\r\nnew: 1\r\n\r\n"
        )
        assert await replies(client, 9) == [250] * 9
        client.close()
    assert [gateway.content(one.content) for one in gateway.submissions] == [b"new: 1\r\n\r\n"]


async def test_a_client_that_goes_between_chunks_leaves_nothing() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        client.writer.write(BEGIN + b"BDAT 8\r\nold: 1\r\n")
        assert await replies(client, 4) == [250] * 4
        client.writer.write_eof()
        assert await client.is_closed()
    assert gateway.submissions == []


async def test_what_the_envelope_says_of_utf8_and_notifications_is_handed_on() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        client.writer.write(
            b"EHLO c.test\r\nMAIL FROM:<" + "é@bücher.test".encode() + b"> SMTPUTF8 RET=HDRS ENVID=E1\r\n"
            b"RCPT TO:<c@d.test>\r\nRCPT TO:<e@d.test> NOTIFY=FAILURE,DELAY ORCPT=rfc822;o@d.test\r\n"
            b"DATA\r\nx: y\r\n\r\n.\r\n"
        )
        assert await replies(client, 6) == [250, 250, 250, 250, 354, 250]
        client.close()
    envelope = gateway.submissions[0].envelope
    assert (envelope.reverse_path, envelope.recipients) == ("é@xn--bcher-kva.test", ("c@d.test", "e@d.test"))
    assert envelope.smtputf8
    assert gateway.submissions[0].with_protocol == "UTF8SMTP"
    assert envelope.dsn == DsnRequest("HDRS", "E1", ("", "FAILURE,DELAY"), ("", "rfc822;o@d.test"))


async def test_xclient_gives_nobody_another_address() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        assert b"XCLIENT" not in await client.ask(b"EHLO c.test")
        assert (await client.ask(b"XCLIENT ADDR=192.0.2.1 LOGIN=erp")).startswith(b"502 5.5.1 ")
        assert (await client.ask(b"XFORWARD ADDR=192.0.2.1")).startswith(b"502 5.5.1 ")
        assert await is_served(gateway, client)
    assert (gateway.submissions[0].peer, gateway.submissions[0].application.name) == ("127.0.0.1", "local")
