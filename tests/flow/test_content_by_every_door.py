"""What content any door takes, small or large: never a bare CR or LF, never parts nested too deeply."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx2
import pytest
from dkim.canonicalization import Relaxed

from postroom.api import create_app
from postroom.config import ListenerSettings, Settings, SmtpSettings
from postroom.daemon.first_start import provision
from postroom.gateway import Gateway
from postroom.model.content import INLINE_BYTES, StagedBody
from postroom.model.ids import parse_message_id
from postroom.model.queue import LaneId
from postroom.protocol.smtp.content import has_bare_line_end
from postroom.store import DeliveryFilter
from postroom.submission.listener import Listener
from tests.submission_door import RawClient

HEAD = b"From: a@example.org\r\nSubject: s\r\n"
LARGE = b"0123456789abcdef\r\n" * (2 * INLINE_BYTES // 18)

#: Gives a message to a door: what the door said, and the message's id if it was taken.
Door = Callable[[bytes], Awaitable[tuple[str, str]]]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway as a new folder has it, which takes mail and delivers none."""
    gateway = await Gateway.open(Settings.load(tmp_path, hostname="gateway.example.test"))
    await provision(gateway)
    yield gateway
    await gateway.stop()


@pytest.fixture(params=["smtp", "smtp in chunks", "rest"])
async def door(gateway: Gateway, request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    """A way in."""
    if request.param == "rest":
        transport = httpx2.ASGITransport(create_app(gateway))
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway.example.test") as api:
            yield _by_rest(api)
        return
    listener = Listener(gateway, ListenerSettings(port=0), SmtpSettings(), hostname="gateway.example.test")
    await listener.start()
    client = await RawClient.connect(listener)
    yield _by_smtp(client, in_chunks=request.param == "smtp in chunks")
    client.close()
    await listener.stop(0)


def _by_rest(client: httpx2.AsyncClient) -> Door:
    async def give(content: bytes) -> tuple[str, str]:
        response = await client.post(
            "/v1/messages",
            params={"from": "a@example.org", "to": "b@example.net"},
            content=content,
            headers={"content-type": "message/rfc822"},
        )
        return response.text, response.json().get("id", "")

    return give


def _by_smtp(client: RawClient, *, in_chunks: bool) -> Door:
    async def give(content: bytes) -> tuple[str, str]:
        for line in (b"EHLO c.test", b"MAIL FROM:<a@example.org>", b"RCPT TO:<b@example.net>"):
            assert (await client.ask(line)).startswith(b"250")
        if in_chunks:
            client.writer.write(b"BDAT %d LAST\r\n" % len(content) + content)
        else:
            assert (await client.ask(b"DATA")).startswith(b"354")
            stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
            client.writer.write(stuffed + (b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"))
        reply = (await client.reply()).decode()
        return reply, reply.partition("queued as ")[2].strip() if reply.startswith("250") else ""

    return give


async def stored(gateway: Gateway, message_id: str) -> bytes:
    content = await gateway.store.content(parse_message_id(message_id))
    assert content is not None
    return content


def nested(levels: int) -> bytes:
    return b"".join(b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(levels))


@pytest.mark.parametrize("padding", [b"", LARGE], ids=["small", "large"])
async def test_parts_nested_too_deeply_are_refused_with_5_6_0(gateway: Gateway, door: Door, padding: bytes) -> None:
    outermost = HEAD + b"Content-Type: multipart/mixed; boundary=outermost\r\n\r\n" + padding + b"--outermost\r\n"
    said, message_id = await door(outermost + nested(100) + b"\r\nx\r\n")
    assert message_id == ""
    assert "5.6.0" in said
    assert "100 deep (setting smtp.max_mime_depth)" in said
    assert await gateway.store.deliveries(DeliveryFilter()) == []
    said, message_id = await door(outermost + nested(99) + b"\r\nx\r\n")
    assert (await stored(gateway, message_id)).endswith(b"--98\r\n\r\nx\r\n"), said


BARE = [
    b"a\nb\r\n",
    b"a\rb\r\n",
    b"a\r\r\nb\r\n",
    b"a\r\n\rb\r\n",
    b"a\n\r\nb\r\n",
    b"a\r\n.\nMAIL FROM:<x@example.org>\r\n",
    b"a\r\n.\rMAIL FROM:<x@example.org>\r\n",
    b"a\n.\r\nMAIL FROM:<x@example.org>\r\n",
    b"a\r",
    b"a\n",
]


@pytest.mark.parametrize("padding", [b"", LARGE], ids=["small", "large"])
async def test_no_bare_line_end_is_ever_stored(gateway: Gateway, door: Door, padding: bytes) -> None:
    taken = 0
    for text in BARE:
        said, message_id = await door(HEAD + b"\r\n" + padding + text)
        taken += bool(message_id)
        if b"\r" in text.replace(b"\r\n", b""):
            assert message_id == "", (text, said)
        else:  # a client on this machine may end lines with LF
            content = await stored(gateway, message_id)
            assert not has_bare_line_end(content), text
            expected = padding + text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            assert content.rstrip(b"\r\n").endswith(expected.rstrip(b"\r\n")), text
    assert len(await gateway.store.deliveries(DeliveryFilter())) == taken == 5


async def test_a_large_body_is_stored_with_its_dkim_hash(gateway: Gateway, door: Door) -> None:
    body = b"a  line \t\r\n" * (INLINE_BYTES // 8) + b"\r\n \r\n"
    said, _ = await door(HEAD + b"\r\n" + body)
    (account,) = gateway.accounts.snapshot()
    (due,) = (await gateway.store.due(LaneId(account.id), gateway.clock.now(), 10)).messages
    assert isinstance(due.content.body, StagedBody), said
    assert due.content.body.body_hash == hashlib.sha256(Relaxed.canonicalize_body(body)).digest()
