"""Limits count a transaction from its MAIL: who watches is told when it was answered, and whether it was written."""

from __future__ import annotations

import asyncio

from postroom.model.envelope import Envelope
from postroom.net.smtp_client import ContentSource, SmtpConnection, TransactionResult
from tests.flow.smtp_client.talk import HEAD, Line, Relay, commands, open_to


def _start(connection: SmtpConnection, number: int, told: list[str]) -> asyncio.Future[TransactionResult]:
    ended: asyncio.Future[TransactionResult] = asyncio.get_running_loop().create_future()

    def done(result: TransactionResult) -> None:
        told.append(f"end {number}")
        ended.set_result(result)

    envelope = Envelope(f"s{number}@x.test", (f"r{number}@y.test",))
    source = ContentSource(HEAD, b"hello\r\n")
    connection.start(envelope, source, done, lambda: told.append(f"mail {number}"))
    return ended


async def test_it_is_told_when_mail_is_answered_and_before_the_end() -> None:
    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        line.say("250 ok", "250 ok", "354 go")
        await line.content()
        await line.expect(*commands(1))
        line.say("250 taken", "550 not you", "503 no", "503 no")
        await line.end()

    told: list[str] = []
    async with Relay(talk) as relay:
        connection = await open_to(relay)
        first, second = _start(connection, 0, told), _start(connection, 1, told)
        assert (await first).was_begun
        assert (await second).was_begun
        assert told == ["mail 0", "end 0", "mail 1", "end 1"]
        connection.abort()


async def test_an_envelope_ahead_that_is_lost_was_begun_and_one_behind_it_was_not() -> None:
    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        line.say("250 ok", "250 ok", "354 go")
        await line.content()
        await line.expect(*commands(1))

    told: list[str] = []
    async with Relay(talk) as relay:
        connection = await open_to(relay)
        first, second = _start(connection, 0, told), _start(connection, 1, told)
        assert (await first).content_written
        ahead = await second
        assert ahead.not_started and ahead.was_begun
        assert told == ["mail 0", "end 0", "end 1"]


async def test_without_pipelining_what_waits_behind_another_was_not_begun() -> None:
    async def talk(line: Line) -> None:
        await line.greet()
        assert await line.line() == b"MAIL FROM:<s0@x.test>\r\n"

    told: list[str] = []
    async with Relay(talk) as relay:
        connection = await open_to(relay)
        first, second = _start(connection, 0, told), _start(connection, 1, told)
        assert (await first).was_begun
        assert not (await second).was_begun
        assert [word for word in told if word.startswith("mail")] == []
