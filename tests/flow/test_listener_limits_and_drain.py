"""Connections, time and the end: what one client may hold, and how a listener stops."""

from __future__ import annotations

import asyncio

import pytest

from postroom.config import ListenerSettings
from postroom.errors import InvalidInput
from postroom.submission import clients as clients_module
from postroom.submission.clients import Clients, client_network, plain_address
from tests.submission_door import KeepingGateway, RawClient, listening, until

ACCEPTED = b"250 2.0.0 Ok: queued as 00000000-0000-0000-0000-000000000000\r\n"


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_an_idle_connection_ends() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        gateway.clock.advance(299)
        await client.ask(b"NOOP")
        gateway.clock.advance(299)
        assert await client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        gateway.clock.advance(301)
        assert await client.reply() == b"421 4.4.2 Idle for too long\r\n"
        assert await client.is_closed()


async def test_octets_that_make_no_command_do_not_keep_a_connection() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        for _ in range(3):
            client.writer.write(b"x")
            await settle()
            gateway.clock.advance(100)
        assert (await client.reply()).startswith(b"421 4.4.2 ")
        assert await client.is_closed()


async def test_time_does_not_run_while_the_client_waits_for_a_commit() -> None:
    gateway = KeepingGateway(commits=False)
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"x: y\r\n\r\n.\r\n")
        await gateway.came.wait()
        gateway.clock.advance(3600)
        gateway.commit()
        assert await client.reply() == ACCEPTED
        assert await client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        client.close()


async def test_content_that_trickles_in_ends_at_its_deadline() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        elapsed = 0
        while elapsed < 590:
            client.writer.write(b"slow\r\n")
            await settle()
            gateway.clock.advance(10)
            elapsed += 10
        assert not client.reader.at_eof()
        client.writer.write(b"slow\r\n")
        await settle()
        gateway.clock.advance(11)
        assert await client.reply() == b"421 4.4.2 The content takes too long\r\n"
        assert await client.is_closed()
    assert gateway.submissions == []


async def test_content_at_a_fair_rate_may_take_longer() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        for _ in range(8):
            client.writer.write(b"0123456\r\n" * 88_900)  # 100 s at 8 kB/s
            await client.writer.drain()
            await settle()
            gateway.clock.advance(100)
        client.writer.write(b".\r\n")
        assert await client.reply() == ACCEPTED
        client.close()


async def test_connections_of_one_client_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients_module, "is_loopback", lambda peer_ip: False)
    gateway = KeepingGateway()
    async with listening(gateway, max_connections_per_client=2) as door:
        first = await RawClient.connect(door)
        second = await RawClient.connect(door)
        third = await RawClient.connect(door, greeting=b"421 4.7.0 ")
        assert await third.is_closed()
        assert await first.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
        assert await first.is_closed()
        await until(lambda: door.connections == 1)
        fourth = await RawClient.connect(door)
        second.close()
        fourth.close()


async def test_programs_of_this_machine_are_not_limited() -> None:
    gateway = KeepingGateway()
    async with listening(gateway, max_connections_per_client=2) as door:
        clients = [await RawClient.connect(door) for _ in range(5)]
        for client in clients:
            client.close()


def test_an_ipv6_client_is_its_network_and_mapped_ipv4_is_ipv4() -> None:
    assert client_network("2001:db8::1") == client_network("2001:db8::ffff:1")
    assert client_network("2001:db8::1") != client_network("2001:db8:0:1::1")
    assert plain_address("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain_address("fe80::1%eth0") == "fe80::1"


def test_what_is_remembered_of_failed_logins_is_bounded() -> None:
    clients = Clients(50)
    for n in range(3 * clients_module.MAX_REMEMBERED):
        clients.login_failed(f"10.0.{n >> 8 & 255}.{n & 255}", f"name{n}", float(n) / 1000)
    assert len(clients._failures) == clients_module.MAX_REMEMBERED


async def test_stopping_ends_idle_connections_and_takes_no_more() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        address = door.address
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        await door.stop()
        assert await client.reply() == b"421 4.3.2 Shutting down\r\n"
        assert await client.is_closed()
        with pytest.raises(OSError):
            await asyncio.open_connection(*address)


async def test_stopping_lets_a_transaction_end() -> None:
    gateway = KeepingGateway(commits=False)
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        stopping = asyncio.ensure_future(door.stop())
        await settle()
        assert not stopping.done()
        client.writer.write(b"x: y\r\n\r\n.\r\nMAIL FROM:<e@f.test>\r\n")
        await gateway.came.wait()
        gateway.commit()
        assert await client.reply() == ACCEPTED
        assert await client.reply() == b"421 4.3.2 Shutting down\r\n"
        assert await client.is_closed()
        await stopping


async def test_stopping_waits_for_nobody_longer_than_it_may() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        stopping = asyncio.ensure_future(door.stop(4.0))
        await settle()
        assert not stopping.done()
        gateway.clock.advance(4)
        await stopping
        assert await client.is_closed()


async def test_a_client_that_reads_nothing_is_not_read_either() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door, limit=64)
        client.writer.write(b"EHLO c.test\r\n")
        wrote = 0
        while wrote < 64 * 1024 * 1024:
            client.writer.write(b"HELP\r\n" * 10_000)
            wrote += 60_000
            before = -1
            while before != (left := client.writer.transport.get_write_buffer_size()):
                before = left
                await settle()
            if left > 1_000_000:
                break
        assert wrote < 64 * 1024 * 1024
        client.writer.transport.abort()


async def test_a_taken_port_is_named() -> None:
    async with listening(KeepingGateway()) as door:
        settings = ListenerSettings(port=door.address[1])
        with pytest.raises(InvalidInput, match=f"port {door.address[1]}"):
            async with listening(KeepingGateway(), settings):
                pass
