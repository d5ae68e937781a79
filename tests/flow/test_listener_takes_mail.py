"""The listener takes mail from real clients, answers 250 only once it is durable, and says why it does not."""

from __future__ import annotations

import asyncio
import hashlib
import smtplib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from postroom.errors import (
    Busy,
    Fault,
    GatewayError,
    InvalidInput,
    LimitReached,
    Refused,
    StorageFailed,
    StorageFull,
    TooLarge,
)
from postroom.model.content import CHUNK_BYTES, INLINE_BYTES, StagedBody
from tests.submission_door import KeepingGateway, RawClient, listening, until

ACCEPTED = b"250 2.0.0 Ok: queued as 00000000-0000-0000-0000-000000000000\r\n"


async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, call, *arguments)


async def test_smtplib_sends_a_message() -> None:
    gateway = KeepingGateway()

    def send(host: str, port: int) -> dict[str, tuple[int, bytes]]:
        with smtplib.SMTP(host, port, local_hostname="client.test") as client:
            return client.sendmail(
                "a@b.test", ["c@d.test", "e@f.test"], "Subject: hällo\r\n\r\n.dot\r\n".encode(), ["BODY=8BITMIME"]
            )

    async with listening(gateway) as door:
        assert await in_thread(send, *door.address) == {}
    (submission,) = gateway.submissions
    assert submission.envelope.reverse_path == "a@b.test"
    assert submission.envelope.recipients == ("c@d.test", "e@f.test")
    assert submission.envelope.eight_bit
    assert (submission.content.head, submission.content.body) == ("Subject: hällo\r\n\r\n".encode(), b".dot\r\n")
    assert (submission.peer, submission.helo, submission.with_protocol) == ("127.0.0.1", "client.test", "ESMTP")
    assert submission.application.name == "local"


async def test_the_reply_waits_for_the_commit() -> None:
    gateway = KeepingGateway(commits=False)
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"x: y\r\n\r\n.\r\nMAIL FROM:<e@f.test>\r\nNOOP\r\n")
        await gateway.came.wait()
        waiting = asyncio.ensure_future(client.reply())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        gateway.commit()
        assert await waiting == ACCEPTED
        assert [await client.reply(), await client.reply()] == [b"250 2.1.0 Ok\r\n", b"250 2.0.0 Ok\r\n"]
        client.close()


async def test_a_client_that_goes_before_the_commit_harms_nobody() -> None:
    gateway = KeepingGateway(commits=False)
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"x: y\r\n\r\n.\r\n")
        await gateway.came.wait()
        client.writer.transport.abort()
        gateway.commit()
        await until(lambda: not door.connections)
        other = await RawClient.connect(door)
        assert await other.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        other.close()


async def test_a_client_that_only_stopped_sending_gets_its_reply() -> None:
    gateway = KeepingGateway(commits=False)
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"x: y\r\n\r\n.\r\n")
        client.writer.write_eof()
        await gateway.came.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        gateway.commit()
        assert await client.reply() == ACCEPTED
        assert await client.is_closed()


async def test_a_message_cut_off_is_not_taken() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"x: y\r\n\r\nhalf\r\n.\r")
        client.writer.write_eof()
        assert await client.is_closed()
    assert gateway.submissions == []


async def test_a_null_reverse_path_needs_the_right_to_send_as_all() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        assert await client.ask(b"MAIL FROM:<>") == b"250 2.1.0 Ok\r\n"
        client.close()


ERRORS: list[tuple[GatewayError, bytes]] = [
    (StorageFull("disk /data is full"), b"452 4.3.1 No room for the message now\r\n"),
    (StorageFailed("disk /data"), b"451 4.3.0 Try again later\r\n"),
    (Busy("quota"), b"451 4.3.2 Not taking messages now\r\n"),
    (LimitReached("erp has reached its limit"), b"451 4.7.1 erp has reached its limit\r\n"),
    (Refused("no account for x"), b"550 5.7.1 no account for x\r\n"),
    (Refused("50 Received", status="5.4.6", reply_code=554), b"554 5.4.6 50 Received\r\n"),
    (TooLarge("x"), b"552 5.3.4 Message too large\r\n"),
    (InvalidInput(Fault("From", "there is none", "add one")), b"501 5.5.4 From: there is none (add one)\r\n"),
]


@pytest.mark.parametrize("late", [False, True], ids=["at once", "after a while"])
@pytest.mark.parametrize(("error", "reply"), ERRORS, ids=lambda value: type(value).__name__)
async def test_an_error_is_told_in_general_words(error: GatewayError, reply: bytes, late: bool) -> None:
    gateway = KeepingGateway(commits=False, error=None if late else error)
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"x: y\r\n\r\n.\r\n")
        if late:
            await gateway.came.wait()
            gateway.waiting[0].set_exception(error)
        assert await client.reply() == reply
        gateway.error = None
        gateway.commits = True
        gateway.waiting.clear()
        assert await client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        client.close()


async def test_where_nobody_knows_whether_it_was_kept_there_is_no_reply() -> None:
    gateway = KeepingGateway(commits=False)
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"x: y\r\n\r\n.\r\n")
        await gateway.came.wait()
        gateway.waiting[0].set_exception(ConnectionError("the answer to COMMIT was lost"))
        assert await client.is_closed()


async def test_large_content_is_staged_in_chunks() -> None:
    gateway = KeepingGateway()
    head = b"Subject: large\r\n\r\n"
    body = b"".join(b"%076d\r\n" % line for line in range(12_000))
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(head + body + b".\r\n")
        assert await client.reply() == ACCEPTED
        client.close()
    (submission,) = gateway.submissions
    staged = submission.content.body
    assert isinstance(staged, StagedBody)
    assert submission.content.head == head
    assert gateway.content(submission.content) == head + body
    assert (staged.size_bytes, staged.sha256) == (len(body), hashlib.sha256(body).digest())
    sizes = [len(chunk) for chunk in gateway.staged[staged.content_id].values()]
    assert sizes[:-1] == [CHUNK_BYTES] * (len(sizes) - 1)
    assert not submission.envelope.eight_bit


async def test_content_is_not_read_while_its_chunks_are_not_stored() -> None:
    gateway = KeepingGateway(stages=False)
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        body = b"".join(b"%076d\r\n" % line for line in range(60_000))
        client.writer.write(b"Subject: x\r\n\r\n" + body + b".\r\n")
        reply = asyncio.ensure_future(client.reply())
        most = 0
        while not reply.done():
            # Until nothing moves any more: what is on its way into the store is then all that was read.
            before = -1
            while before != len(gateway.staging):
                before = len(gateway.staging)
                for _ in range(20):
                    await asyncio.sleep(0)
            waiting = [future for future in gateway.staging if not future.done()]
            most = max(most, len(waiting))
            if waiting:
                waiting[0].set_result(None)
        assert await reply == ACCEPTED
        assert most <= 5  # 3, and what one read of the socket may add
        client.close()
    assert gateway.content(gateway.submissions[0].content) == b"Subject: x\r\n\r\n" + body


async def test_a_chunk_that_cannot_be_stored_refuses_the_message() -> None:
    gateway = KeepingGateway(stages=False)
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"x: y\r\n\r\n" + b"line\r\n" * 100_000)
        await gateway.came.wait()
        gateway.staging[0].set_exception(StorageFull("no room"))
        gateway.stages = True
        await asyncio.sleep(0)  # what fails later than the end of data is found by the message's own transaction
        await asyncio.sleep(0)
        client.writer.write(b".\r\n")
        assert await client.reply() == b"452 4.3.1 No room for the message now\r\n"
        client.close()
    assert gateway.submissions == []


@pytest.mark.parametrize("lines", [1000, 100_000])
async def test_a_header_section_over_its_limit_is_refused(lines: int) -> None:
    gateway = KeepingGateway()
    async with listening(gateway, max_header_bytes="16KiB") as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"x-y: 0123456789\r\n" * lines + b"\r\nbody\r\n.\r\n")
        assert (await client.reply()).startswith(b"552 5.3.4 ")
        client.close()
    assert gateway.submissions == []


@pytest.mark.parametrize(
    "content",
    [
        b"no header\r\n" * 60_000,
        b"\r\n" + b"body\r\n" * 60_000,
        b"A: " + b"b" * INLINE_BYTES + b"\r\n\r\nbody\r\n",
        b"A: " + b"b\r\n c" * 60_000 + b"\r\n\r\n" + b"body\r\n" * 100_000,
    ],
    ids=["no head", "empty head", "long head", "long head and body"],
)
async def test_head_and_body_are_told_apart_also_where_they_are_large(content: bytes) -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(content + b".\r\n")
        assert await client.reply() == ACCEPTED
        client.close()
    kept = gateway.submissions[0].content
    assert gateway.content(kept) in (content, b"\r\n" + content)
    assert kept.head.endswith(b"\r\n\r\n") or kept.head == b"\r\n"


@pytest.mark.parametrize(("before", "after"), [(0, 100_000), (100_000, 0), (0, 0)])
async def test_eight_bit_content_is_found_undeclared(before: int, after: int) -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"x: y\r\n\r\n" + b"line\r\n" * before + b"\xff\r\n" + b"line\r\n" * after + b".\r\n")
        assert await client.reply() == ACCEPTED
        client.close()
    assert gateway.submissions[0].envelope.eight_bit


async def test_a_loopback_client_may_end_lines_with_lf() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"x: y\n\nbody\n\r\n.\r\n")
        assert await client.reply() == ACCEPTED
        client.close()
    assert gateway.content(gateway.submissions[0].content) == b"x: y\r\n\r\nbody\r\n\r\n"


async def test_the_application_is_the_one_of_the_moment() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"x: y\r\n\r\n.\r\n")
        assert await client.reply() == ACCEPTED
        gateway.applications.passwordless = False
        assert await client.ask(b"MAIL FROM:<a@b.test>") == b"530 5.7.0 Authentication required\r\n"
        client.close()
    assert replace(gateway.submissions[0].application, name="local") == gateway.submissions[0].application
