"""How soon a new client is greeted while many others keep their connections busy with next to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine

from .traffic import RECIPIENT, SENDER, Void

#: New clients, one after the other.
PROBES = 20

#: What a slow client writes of its content, and how often.
_LINE = b"a line, at long last\r\n"
_PAUSE_SECONDS = 0.25

_PATIENCE_SECONDS = 60

#: A client that is slow after `in_place()`, until it is cancelled or the gateway has had enough of it.
Slow = Callable[[int, Callable[[], None]], Coroutine[None, None, None]]


async def half_a_command(port: int, in_place: Callable[[], None]) -> None:
    """Says EHLO, begins MAIL, and never ends the line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        await _until(reader, b"220 ")
        writer.write(b"EHLO slow.example\r\n")
        await _until(reader, b"250 ")
        writer.write(b"MAIL FROM:<slow@")
        await writer.drain()
        in_place()
        await reader.read()


async def trickled_content(port: int, in_place: Callable[[], None]) -> None:
    """Sends a content that never ends, a short line at a time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        await _until(reader, b"220 ")
        writer.write(f"EHLO slow.example\r\nMAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode())
        await _until(reader, b"354 ")
        writer.write(b"Subject: slow\r\n\r\n")
        in_place()
        while not reader.at_eof():
            writer.write(_LINE)
            await writer.drain()
            await asyncio.sleep(_PAUSE_SECONDS)


async def _until(reader: asyncio.StreamReader, start: bytes) -> None:
    """Read lines up to one that begins with `start`."""
    while line := await reader.readline():
        if line.startswith(start):
            return
    raise ConnectionError("the gateway has closed the connection")


async def _greeted_seconds(port: int) -> float:
    began = time.perf_counter()
    async with asyncio.timeout(_PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            await _until(reader, b"220 ")
            return time.perf_counter() - began


async def _worst(port: int, crowd: int, slow: Slow) -> float:
    everybody, arrived = asyncio.Event(), 0

    def in_place() -> None:
        nonlocal arrived
        arrived += 1
        if arrived == crowd:
            everybody.set()

    clients = [asyncio.create_task(slow(port, in_place)) for _ in range(crowd)]
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await everybody.wait()
        worst = max([await _greeted_seconds(port) for _ in range(PROBES)])
        gone = sum(1 for client in clients if client.done())
    except TimeoutError:
        raise Void(f"{arrived} of {crowd} slow clients were let in, or a new one was not greeted") from None
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    if gone:
        raise Void(f"{gone} of {crowd} slow clients were sent away while new ones were greeted")
    return worst


def worst_greeting_seconds(port: int, crowd: int, slow: Slow) -> float:
    """From connect to greeting, the longest of `PROBES` new clients beside `crowd` slow ones.

    Raises:
        Void: the slow ones were not all connected all the time.
    """
    return asyncio.run(_worst(port, crowd, slow))
