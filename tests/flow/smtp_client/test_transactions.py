"""Transactions over a real socket: envelope ahead, content held back, and every way to break off."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from postroom.model.envelope import Envelope
from postroom.net.smtp_client import ConnectFailed, ContentSource, SmtpConnection, TransactionResult
from postroom.protocol.smtp import LocalProtocolError
from postroom.protocol.smtp.transaction import LeftOut
from tests.flow.smtp_client.talk import HEAD, Line, Relay, commands, hang_up, open_to, start


async def test_the_envelope_of_the_next_goes_with_the_content() -> None:
    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        line.say("250 ok", "250 ok", "354 go")
        assert await line.content() == HEAD + b"hello\r\n"
        await line.expect(*commands(1))  # before the reply to the content of the first
        line.say("250 2.0.0 taken", "250 ok", "250 ok", "354 go")
        await line.content()
        line.say("451 4.3.0 disk")
        await line.expect("QUIT")
        line.say("221 bye")

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        first, second = start(connection, 0), start(connection, 1)
        assert not connection.may_start
        with pytest.raises(LocalProtocolError):
            start(connection, 2)
        assert (await first).is_delivered(0)
        result = await second
        assert result.final is not None and (result.final.code, result.final.enhanced) == (451, "4.3.0")
        assert result.content_written and not result.error
        assert connection.is_idle
        assert connection.transcript(result).endswith(
            "C: MAIL FROM:<s1@x.test>\nS: 250 ok\nC: RCPT TO:<r1@y.test>\nS: 250 ok\nC: DATA\nS: 354 go\n"
            "C: [21 octets of content]\nC: .\nS: 451 4.3.0 disk"
        )
        await connection.quit()


async def test_blocked_content_waits_and_then_goes_with_the_envelope_ahead() -> None:
    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        line.say("250 ok", "250 ok", "354 go")
        await line.content()
        await line.expect(*commands(1))
        line.say("250 taken", "250 ok", "250 ok", "354 go")
        await line.content()
        await line.expect(*commands(2))
        line.say("250 taken", "550 5.1.0 not you", "503 no", "503 no")
        await line.expect("RSET")

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        first: asyncio.Future[TransactionResult] = asyncio.get_running_loop().create_future()

        def block(result: TransactionResult) -> None:
            connection.block_content()
            first.set_result(result)

        connection.start(Envelope("s0@x.test", ("r0@y.test",)), ContentSource(HEAD, b"hello\r\n"), block)
        second = start(connection, 1)
        assert (await first).is_delivered(0)
        third = start(connection, 2)
        # The replies to both came in one read, and the second content has not been written.
        assert not connection.machine.awaits_reply
        connection.allow_content()
        assert connection.machine.awaits_final_reply
        assert (await second).is_delivered(0)
        refused = await third
        assert refused.mail is not None and refused.mail.code == 550
        assert not refused.content_written
        connection.abort()


Breaks = Callable[[Line], Awaitable[None]]


async def _resets(line: Line) -> None:
    line.reset()


async def _says_421(line: Line) -> None:
    line.say("421 4.3.2 going down")


async def _talks_rubbish(line: Line) -> None:
    line.say("what a fine day")


@pytest.mark.parametrize(
    ("breaks", "kind"),
    [(hang_up, "network"), (_resets, "network"), (_says_421, "closing"), (_talks_rubbish, "protocol")],
)
async def test_a_break_before_the_content_leaves_both_messages_unsent(breaks: Breaks, kind: str) -> None:
    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        await breaks(line)
        await line.end()

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        closed: list[str] = []
        connection.on_closed = closed.append
        first, second = await asyncio.gather(start(connection, 0), start(connection, 1))
        assert (first.error_kind, first.content_written, first.not_started) == (kind, False, False)
        assert (second.error_kind, second.content_written, second.not_started) == (kind, False, True)
        assert closed == [first.error]
        assert not connection.is_usable
        assert connection.transcript(first).endswith(f"-- {first.error}")


@pytest.mark.parametrize(
    ("breaks", "kind"),
    [(hang_up, "network"), (_resets, "network"), (_says_421, "closing"), (_talks_rubbish, "protocol")],
)
async def test_a_break_behind_the_content_leaves_it_unknown_and_the_next_unsent(breaks: Breaks, kind: str) -> None:
    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        line.say("250 ok", "250 ok", "354 go")
        await line.content()
        await line.expect(*commands(1))
        await breaks(line)
        await line.end()

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        first, second = await asyncio.gather(start(connection, 0), start(connection, 1))
        assert first.content_written
        if kind == "closing":  # that was the reply to the content
            assert first.final is not None and first.final.code == 421
        else:
            assert (first.final, first.error_kind) == (None, kind)
        assert (second.error_kind, second.content_written, second.not_started) == (kind, False, True)


async def test_a_relay_that_has_had_enough_messages_says_421_to_the_envelope_ahead() -> None:
    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        line.say("250 ok", "250 ok", "354 go")
        await line.content()
        await line.expect(*commands(1))
        line.say("250 2.0.0 taken", "421 4.7.0 enough")
        await line.end()

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        first, second = await asyncio.gather(start(connection, 0), start(connection, 1))
        assert first.is_delivered(0) and not first.error
        assert second.not_started and second.mail is not None and second.mail.code == 421


async def test_each_refusal_lets_the_next_message_through() -> None:
    taken: list[bytes] = []

    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        for number, refusal in enumerate(["MAIL", "RCPT", "DATA", "content", ""]):
            await line.expect(*commands(number))
            line.say("550 no" if refusal == "MAIL" else "250 ok", "550 no" if refusal == "RCPT" else "250 ok")
            if refusal in ("MAIL", "RCPT", "DATA"):
                line.say("554 no")
                await line.expect("RSET")
                line.say("250 ok")
                continue
            line.say("354 go")
            taken.append(await line.content())
            line.say("554 no" if refusal == "content" else "250 2.0.0 taken")
        await line.expect("QUIT")

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        results = [await start(connection, number, b"%d\r\n" % number) for number in range(5)]
        assert [result.is_delivered(0) for result in results] == [False, False, False, False, True]
        assert [result.content_written for result in results] == [False, False, False, True, True]
        await connection.quit()
    assert taken == [HEAD + b"3\r\n", HEAD + b"4\r\n"]


async def test_a_server_without_pipelining_is_asked_one_by_one_and_helo_serves_where_ehlo_does_not() -> None:
    async def talk(line: Line) -> None:
        line.say("220 old.test")
        await line.expect("EHLO client.test")
        line.say("502 5.5.1 what?")
        await line.expect("HELO client.test")
        line.say("250 old.test")
        for number in range(2):
            for command in commands(number)[:2]:
                await line.expect(command)
                line.say("250 ok")
            await line.expect("DATA")
            line.say("354 go")
            await line.content()
            line.say("250 taken")
        await line.expect("QUIT")

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        assert not connection.pipelining
        results = await asyncio.gather(start(connection, 0), start(connection, 1))
        assert all(result.is_delivered(0) for result in results)
        await connection.quit()


async def test_an_envelope_that_cannot_be_written_harms_nobody_else() -> None:
    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(1))
        line.say("250 ok", "250 ok", "354 go")
        await line.content()
        line.say("250 taken")
        await line.expect("QUIT")

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        bad: asyncio.Future[TransactionResult] = asyncio.get_running_loop().create_future()
        unsafe: asyncio.Future[TransactionResult] = asyncio.get_running_loop().create_future()
        connection.start(Envelope("a@x.test", ("é@y.test",)), ContentSource(HEAD, b""), bad.set_result)
        connection.start(Envelope("a@x.test", ("b>@y.test",)), ContentSource(HEAD, b""), unsafe.set_result)
        good = start(connection, 1)
        assert (await bad).left_out == {0: LeftOut.ADDRESS}
        assert (await unsafe).error_kind == "local"
        assert (await good).is_delivered(0)
        await connection.quit()


async def test_a_connection_that_dies_while_idle_says_so() -> None:
    idle = asyncio.Event()

    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await idle.wait()
        line.say("421 4.4.2 idle for too long")
        await line.end()

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        connection.on_closed = closed.set_result
        idle.set()
        assert "idle for too long" in await closed
        late = await start(connection, 0)
        assert late.not_started and late.error == "421 4.4.2 idle for too long"


async def test_abort_hands_back_what_was_under_way() -> None:
    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.end()

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        results = start(connection, 0), start(connection, 1)
        connection.abort()
        connection.abort()
        assert [(await result).error_kind for result in results] == ["aborted", "aborted"]


@pytest.mark.peer("smtp-sink")
async def test_a_thousand_messages_to_postfix_smtp_sink(
    peer: Callable[[str], Path], free_port: Callable[[], int]
) -> None:
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    sink = await asyncio.create_subprocess_exec(
        peer("smtp-sink"), *user, "-c", f"127.0.0.1:{port}", "100", stdout=asyncio.subprocess.PIPE
    )
    try:
        relay = Relay(hang_up)
        relay.port = port  # the program listens there
        connections = [await reached(relay, sink) for _ in range(4)]
        results = await asyncio.gather(*(send_many(connection, 250) for connection in connections))
        assert sum(map(sum, results)) == 1000
        assert all(connection.pipelining for connection in connections)
        for connection in connections:
            await connection.quit()
    finally:
        if sink.returncode is None:
            sink.terminate()
        counted, _ = await sink.communicate()
    assert b"1000" in counted


async def reached(relay: Relay, program: asyncio.subprocess.Process) -> SmtpConnection:
    """A connection, once the program listens."""
    while True:
        try:
            return await open_to(relay)
        except ConnectFailed as failed:
            assert failed.stage == "connect"
            assert program.returncode is None


async def send_many(connection: SmtpConnection, count: int) -> list[bool]:
    """Keep one envelope ahead until all are sent."""
    waiting = [start(connection, 0)]
    delivered = []
    for number in range(1, count):
        waiting.append(start(connection, number))
        delivered.append((await waiting.pop(0)).is_delivered(0))
    delivered.append((await waiting.pop(0)).is_delivered(0))
    return delivered
