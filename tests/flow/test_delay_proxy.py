"""The line with a delay that round trips are counted on (bench/delay_proxy.py): whole, in order, and counted right."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from bench.delay_proxy import DelayProxy, Flights
from postroom.model.account import Account, AccountKind, Security
from postroom.model.envelope import Envelope
from postroom.net.smtp_client import ContentSource, TransactionResult, connect
from tests.smarthost import Smarthost

OPENING = [("S", b"220 hi\r\n"), ("C", b"EHLO me\r\n"), ("S", b"250-hi\r\n"), ("S", b"250 PIPELINING\r\n")]
CLOSING = [("C", b"QUIT\r\n"), ("S", b"221 bye\r\n")]
LOCKSTEP = [
    ("C", b"MAIL FROM:<a@x.test>\r\n"),
    ("S", b"250 ok\r\n"),
    ("C", b"RCPT TO:<b@y.test>\r\n"),
    ("S", b"250 ok\r\n"),
    ("C", b"DATA\r\n"),
    ("S", b"354 go on\r\n"),
    ("C", b"QUITE a text\r\n.\r\n"),
    ("S", b"250 kept\r\n"),
]
AHEAD = [
    ("C", b"MA"),
    ("C", b"IL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"),
    ("S", b"250 ok\r\n"),
    ("S", b"250 ok\r\n354 go on\r\n"),
    ("C", b"text\r\n"),
    ("C", b".\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"),
    ("S", b"250 kept\r\n"),
    ("S", b"250 ok\r\n250 ok\r\n354 go on\r\n"),
    ("C", b"text\r\n.\r\n"),
    ("S", b"250 kept\r\n"),
]


def played(script: list[tuple[str, bytes]]) -> Flights:
    """The flights of a dialogue whose lines come a second apart."""
    flights = Flights()
    for at, (side, data) in enumerate(script, 1):
        (flights.client_sent if side == "C" else flights.server_said)(data, float(at))
    return flights


@pytest.mark.parametrize(("dialogue", "expected"), [(LOCKSTEP, 4), (AHEAD, 3), (LOCKSTEP + AHEAD, 7)])
def test_a_flight_is_what_is_written_after_waiting_for_a_reply(
    dialogue: list[tuple[str, bytes]], expected: int
) -> None:
    flights = played(OPENING + dialogue + CLOSING)
    assert (flights.opening, flights.transactions, flights.closing) == (1, expected, 1)
    # From MAIL, which comes behind the opening, to the last reply before QUIT.
    assert flights.seconds == len(dialogue) - 1


def test_a_connection_without_mail_has_no_transactions() -> None:
    flights = played(OPENING)
    assert (flights.opening, flights.transactions, flights.closing) == (1, 0, 0)
    assert flights.seconds == 0


@pytest.fixture
async def proxy() -> AsyncIterator[DelayProxy]:
    """Half a round trip of 5 ms, to a server that sends everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    between = DelayProxy(server.sockets[0].getsockname()[1], 0.005)
    await between.start()
    yield between
    await between.stop()
    server.close()
    await server.wait_closed()


async def test_all_comes_out_in_order_with_its_end(proxy: DelayProxy) -> None:
    sent = random.Random(1).randbytes(2_000_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)

    async def send() -> None:
        at = 0
        for size in [1, 7, 70_000, 3, 500_000, len(sent)]:
            writer.write(sent[at : at + size])
            at += size
            await writer.drain()
        writer.write_eof()

    async with asyncio.TaskGroup() as group:
        received = group.create_task(reader.read())
        group.create_task(send())
    assert received.result() == sent
    (flights,) = proxy.connections
    assert (flights.client_octets, flights.server_octets) == (len(sent), len(sent))
    writer.close()


async def test_nothing_comes_before_its_time(proxy: DelayProxy) -> None:
    now = asyncio.get_running_loop().time
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    for _ in range(3):
        began = now()
        writer.write(b"x")
        await reader.readexactly(1)
        assert now() - began >= 0.01
    assert proxy.connections[0].beginnings == [b"x"] * 3
    writer.close()


async def test_a_client_that_breaks_off_ends_the_line() -> None:
    ended = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.read()
        ended.set()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    between = DelayProxy(server.sockets[0].getsockname()[1], 0.001)
    await between.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", between.port)
    assert await reader.readline() == b"220 hi\r\n"
    writer.transport.abort()
    await ended.wait()
    assert between.connections[0].transactions == 0
    await between.stop()
    server.close()
    await server.wait_closed()


async def test_our_client_takes_one_flight_more_than_it_has_messages() -> None:
    """SPEC section 11 asks for at most 1.2 round trips a message; the first envelope is the one more."""
    smarthost = Smarthost()
    await smarthost.start()
    between = DelayProxy(smarthost.port, 0.001)
    await between.start()
    account = Account(
        id=1, name="relay", kind=AccountKind.SMTP, host="127.0.0.1", port=between.port, security=Security.NONE
    )
    connection = await connect(account, helo_name="client.test")
    left, answered = 10, list[bool]()
    finished = asyncio.Event()

    def feed() -> None:
        nonlocal left
        while left and connection.may_start:
            left -= 1
            connection.start(Envelope("a@x.test", ("b@y.test",)), ContentSource(b"A: b\r\n\r\n", b"text\r\n"), done)

    def done(result: TransactionResult) -> None:
        answered.append(result.is_delivered(0))
        feed()
        if len(answered) == 10:
            finished.set()

    feed()
    await finished.wait()
    await connection.quit()
    assert answered == [True] * 10
    (flights,) = between.connections
    assert (flights.opening, flights.transactions, flights.closing) == (1, 11, 1)
    await between.stop()
    await smarthost.stop()
