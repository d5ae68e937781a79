"""Content that is read while it is sent, and content that must not be sent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from postroom.model.content import StagedBody
from tests.flow.smtp_client.talk import HEAD, Line, Relay, commands, open_to, staged, start


@pytest.mark.parametrize(("chunk_bytes", "lines"), [(7, 500), (1000, 10_000), (300_000, 80_000)])
async def test_a_staged_body_arrives_whole_with_the_next_envelope_behind_it(chunk_bytes: int, lines: int) -> None:
    some = [b".", b"..", b"", b"hello", b".x" * 300]
    body = b"\r\n".join(random.Random(lines).choices(some, k=lines)) + b"\r\n"

    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        line.say("250 ok", "250 ok", "354 go")
        assert await line.large_content() == HEAD + body
        await line.expect(*commands(1))
        line.say("250 taken", "250 ok", "250 ok", "354 go")
        await line.content()
        line.say("250 taken")
        await line.expect("QUIT")

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        there, chunks = staged(body, chunk_bytes)
        queued: list[int] = []

        async def watched(wanted: StagedBody) -> AsyncIterator[bytes]:
            async for chunk in chunks(wanted):
                assert connection._transport is not None
                queued.append(connection._transport.get_write_buffer_size())
                yield chunk

        first, second = start(connection, 0, there, chunks=watched), start(connection, 1)
        assert (await first).is_delivered(0) and (await second).is_delivered(0)
        assert max(queued) < 256 * 1024  # the rest waits in the store
        await connection.quit()


async def test_a_staged_body_that_cannot_be_read_never_ends_the_data() -> None:
    got: list[bytes] = []

    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        line.say("250 ok", "250 ok", "354 go")
        got.append(await line.end())

    async def torn(body: StagedBody) -> AsyncIterator[bytes]:
        yield b"first\r\n"
        raise OSError("disk on fire")

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        there, _ = staged(b"first\r\nsecond\r\n", 7)
        result, ahead = await asyncio.gather(start(connection, 0, there, chunks=torn), start(connection, 1))
        assert (result.error_kind, result.content_written, result.not_started) == ("local", False, False)
        assert "disk on fire" in result.error
        assert ahead.not_started
    assert b"\r\n.\r\n" not in got[0]


@pytest.mark.parametrize("body", [b"a\n.\r\nMAIL FROM:<evil@x.test>\r\n", b"a\rb\r\n"])
async def test_content_with_a_bare_line_end_closes_the_connection_instead(body: bytes) -> None:
    got: list[bytes] = []

    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        line.say("250 ok", "250 ok", "354 go")
        got.append(await line.end())

    async with Relay(talk) as relay:
        result = await start(await open_to(relay), 0, body)
        assert (result.error_kind, result.content_written) == ("local", False)
    assert got == [b""]
