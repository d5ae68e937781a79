"""A relay that does its worst over a real socket: what counts, what does not, and that the connection is gone."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta

import pytest

from postroom.model.account import Authentication
from postroom.net.smtp_client import ConnectFailed, SmtpConnection, TransactionResult
from postroom.protocol.smtp.reply_reader import ReplyLimits
from tests.flow.smtp_client.talk import HEAD, Line, Relay, commands, open_to, start

SOON = timedelta(milliseconds=60)


async def both(connection: SmtpConnection) -> tuple[TransactionResult, TransactionResult]:
    """Two messages, the second one's envelope ahead."""
    return await asyncio.gather(start(connection, 0), start(connection, 1))


async def take_first(line: Line) -> None:
    """Up to where the reply to the first content is due, with the second envelope read."""
    await line.greet("PIPELINING")
    await line.expect(*commands(0))
    line.say("250 ok", "250 ok", "354 go")
    assert await line.content() == HEAD + b"hello\r\n"
    await line.expect(*commands(1))


@pytest.mark.parametrize(
    "rubbish", [b"what a fine day\r\n", b"\0\xff\r\n", b"250-a\r\n550 b\r\n", b"250 " + b"x" * 1_000_000 + b"\r\n"]
)
async def test_rubbish_behind_a_good_reply_leaves_that_message_delivered_and_the_next_unsent(rubbish: bytes) -> None:
    async def talk(line: Line) -> None:
        await take_first(line)
        line.write(b"250 2.0.0 taken\r\n" + rubbish)
        assert await line.end() == b""

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        first, second = await both(connection)
        assert first.is_delivered(0) and not first.error
        assert (second.not_started, second.error_kind) == (True, "protocol")
        assert not connection.is_usable


@pytest.mark.parametrize(
    "reply",
    [
        b"250 " + b"x" * 1_000_000 + b"\r\n",
        b"250-x\r\n" * 150_000 + b"250 end\r\n",
        b"\0" * 1_000_000,
    ],
)
async def test_a_reply_of_a_megabyte_leaves_the_message_unknown(reply: bytes) -> None:
    async def talk(line: Line) -> None:
        await take_first(line)
        line.write(reply)
        await line.end()

    async with Relay(talk) as relay:
        first, second = await both(await open_to(relay))
        assert (first.content_written, first.final, first.error_kind) == (True, None, "protocol")
        assert second.not_started


async def test_an_endless_reply_is_cut_off_at_the_limit() -> None:
    async def talk(line: Line) -> None:
        await take_first(line)
        assert await line.flood(b"250-more\r\n" * 100) > 1

    async with Relay(talk) as relay:
        first, _ = await both(await open_to(relay))
        assert "262144 octets" in first.error


async def test_the_reply_limits_are_those_of_the_settings() -> None:
    async def talk(line: Line) -> None:
        line.say("220 relay.test")
        await line.expect("EHLO client.test")
        line.offer(*(f"X{n}" for n in range(100)))
        await line.end()

    async with Relay(talk) as relay:
        with pytest.raises(ConnectFailed, match="a reply of more than 512 octets") as failed:
            await open_to(relay, reply_limits=ReplyLimits(512, 512))
        assert (failed.value.stage, failed.value.kind) == ("ehlo", "protocol")
        assert "a reply of more than 512 octets" in failed.value.transcript


@pytest.mark.parametrize("missing", ["MAIL", "RCPT", "DATA", "content"])
async def test_a_reply_that_is_missing_is_waited_for_no_longer_than_its_time(missing: str) -> None:
    said = {"MAIL": [], "RCPT": ["250 ok"], "DATA": ["250 ok", "250 ok"], "content": ["250 ok", "250 ok", "354 go"]}

    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        line.say(*said[missing])
        if missing == "content":
            await line.content()
        await line.end()

    async with Relay(talk) as relay:
        connection = await open_to(relay, command_timeout=SOON, end_of_data_timeout=SOON)
        result = await start(connection, 0)
        assert (result.error_kind, result.content_written) == ("timeout", missing == "content")
        assert result.final is None


async def test_a_late_reply_finds_nobody_and_changes_nothing() -> None:
    gone = asyncio.Event()

    async def talk(line: Line) -> None:
        await take_first(line)
        await gone.wait()
        line.say("250 2.0.0 taken")
        await line.end()

    async with Relay(talk) as relay:
        connection = await open_to(relay, end_of_data_timeout=SOON)
        first, second = await both(connection)
        gone.set()
        assert (first.error_kind, first.content_written, first.final) == ("timeout", True, None)
        assert second.not_started
        late = await start(connection, 2)
        assert late.not_started


@pytest.mark.parametrize(
    "replies",
    [
        ["250 ok", "354 go", "250 ok"],  # DATA before RCPT
        ["354 go", "250 ok", "250 ok"],
        ["250 ok", "250 ok", "250 ok"],  # to DATA
        ["250 ok", "334 dGVsbA=="],
        ["250 ok", "250 ok", "354 go", "250 taken"],  # to a content that was not written
    ],
)
async def test_replies_out_of_step_send_no_content(replies: list[str]) -> None:
    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        line.say(*replies)
        assert b"hello" not in await line.end()

    async with Relay(talk) as relay:
        first, second = await both(await open_to(relay))
        assert (first.error_kind, first.content_written) == ("protocol", False)
        assert (second.not_started, second.content_written) == (True, False)


async def test_an_unasked_reply_ends_an_idle_connection() -> None:
    idle = asyncio.Event()

    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await idle.wait()
        line.say("250 2.0.0 taken")
        assert await line.end() == b""

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        connection.on_closed = closed.set_result
        idle.set()
        assert "nothing asked for" in await closed
        assert (await start(connection, 0)).not_started


@pytest.mark.parametrize("at", range(1, len(b"250 2.0.0 taken\r\n"), 3))
async def test_a_final_reply_that_is_cut_leaves_the_message_unknown(at: int) -> None:
    async def talk(line: Line) -> None:
        await take_first(line)
        line.write(b"250 2.0.0 taken\r\n"[:at])
        line.close()

    async with Relay(talk) as relay:
        first, second = await both(await open_to(relay))
        assert (first.content_written, first.final, first.error_kind) == (True, None, "network")
        assert second.not_started


async def test_nul_and_8_bit_octets_in_the_text_of_a_reply_do_not_hide_it() -> None:
    async def talk(line: Line) -> None:
        await take_first(line)
        line.write(b"250 2.0.0 \0taken \xff\x1b[2J\r\n550 5.1.0 \0no\r\n503 \xfe\r\n503 x\r\n")
        await line.expect("RSET")
        line.say("250 ok")
        await line.expect("QUIT")

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        first, second = await both(connection)
        assert first.is_delivered(0)
        assert second.mail is not None and second.mail.lines == ("\ufffdno",)
        assert connection.transcript(first).isprintable() or "\x1b" not in connection.transcript(first)
        await connection.quit()


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "content", "RSET"])
async def test_421_at_every_step_of_a_transaction_ends_the_connection_and_the_next_is_unsent(step: str) -> None:
    before = {"MAIL": [], "RCPT": ["250 ok"], "DATA": ["250 ok"] * 2, "content": ["250 ok"] * 2, "RSET": ["550 no"]}

    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect(*commands(0))
        line.say(*before[step])
        if step == "content":
            line.say("354 go")
            await line.content()
        if step == "RSET":
            line.say("503 no", "503 no")
            await line.expect("RSET")
        line.say("421 4.3.2 going down")
        await line.end()

    async with Relay(talk) as relay:
        connection = await open_to(relay)
        first, second = await both(connection)
        assert not first.is_delivered(0)
        assert first.content_written == (step == "content")
        assert first.error_kind == ("" if step in ("content", "RSET") else "closing")
        assert (second.not_started, second.error_kind) == (True, "closing")
        assert not connection.is_usable


@pytest.mark.parametrize(
    "echo",
    [
        "535 5.7.8 bad: AUTH PLAIN {response}",
        "535 5.7.8 no such password as hunter2!",
        "421 4.7.0 AUTH PLAIN {response} cannot be",
        "AUTH PLAIN {response}: command not found",
    ],
)
async def test_a_relay_that_repeats_the_password_gets_it_into_no_error_and_no_transcript(echo: str) -> None:
    response = base64.b64encode(b"\0erp\0hunter2!").decode()

    async def talk(line: Line) -> None:
        await line.greet("AUTH PLAIN")
        await line.expect(f"AUTH PLAIN {response}")
        line.say(echo.format(response=response))
        await line.end()

    async with Relay(talk) as relay:
        with pytest.raises(ConnectFailed) as failed:
            await open_to(
                relay,
                authentication=Authentication.PASSWORD,
                username="erp",
                password="hunter2!",
                allow_clear_password=True,
            )
        error = failed.value
        told = [str(error), error.reason, error.transcript, error.reply.text if error.reply is not None else ""]
        assert all(response not in text and "hunter2!" not in text for text in told)
        assert "[hidden]" in error.reason and "C: AUTH PLAIN [hidden]" in error.transcript
