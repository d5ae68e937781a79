"""A relay that does to each connection what its script says, on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from tests.smarthost import Taken

T = TypeVar("T")

#: How long it may take to start or stop one, in seconds.
PATIENCE = 60.0


class Background:
    """An event loop in a thread of its own, for relays."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it there; what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def close(self) -> None:
        """End the thread, and what runs on the loop."""
        self.run(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end_tasks(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class Talk:
    """One connection of a scripted relay: what the gateway says, line by line, and what is said to it."""

    def __init__(self, relay: ScriptedRelay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.relay = relay
        self.reader = reader
        self.writer = writer
        self.number = relay.connections
        self.stopped = relay.stopped
        self.piece_bytes = 0  # so many octets are written at a time; 0: all
        self._path = ""
        self._recipients: list[str] = []

    async def say(self, octets: bytes) -> None:
        """Write, and wait until the gateway takes it."""
        size = self.piece_bytes or len(octets) or 1
        for start in range(0, len(octets), size):
            self.writer.write(octets[start : start + size])
            await self.writer.drain()

    async def line(self) -> str:
        """The next line of the gateway; ConnectionResetError at its end."""
        line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        self.relay.commands.append(text)
        return text

    def accept(self, recipient: str) -> None:
        """One more for whom the content is."""
        self._recipients.append(recipient)

    async def content(self) -> None:
        """Take what follows a 354."""
        content = await self.reader.readuntil(b"\r\n.\r\n")
        content = (b"\r\n" + content[:-3]).replace(b"\r\n.", b"\r\n")[2:]
        self.relay.taken.append(Taken(self._path, self._recipients, content, self.number))

    async def normally(self, until: str = "", ehlo: Sequence[str] = ("PIPELINING",)) -> None:
        """Be a good relay from the greeting on, until the gateway has said `until` (not answered), or has left."""
        if until == "GREETING":
            return
        await self.say(b"220 scripted.example ESMTP\r\n")
        await self.go_on(until, ehlo)

    async def go_on(self, until: str = "", ehlo: Sequence[str] = ("PIPELINING",)) -> None:
        """The same from the next command on."""
        while True:
            line = await self.line()
            verb = line.split(" ")[0].upper()
            if verb == until:
                return
            if verb == "EHLO":
                lines = ["scripted.example", *ehlo]
                shown = [f"250{' ' if n == len(lines) - 1 else '-'}{text}\r\n" for n, text in enumerate(lines)]
                await self.say("".join(shown).encode())
            elif verb == "MAIL":
                self._path, self._recipients = within(line), []
                await self.say(b"250 2.1.0 ok\r\n")
            elif verb == "RCPT":
                self._recipients.append(within(line))
                await self.say(b"250 2.1.5 ok\r\n")
            elif verb == "DATA" and not self._recipients:
                await self.say(b"554 5.5.1 no valid recipients\r\n")
            elif verb == "DATA":
                await self.say(b"354 go on\r\n")
                await self.content()
                if until == "CONTENT":
                    return
                await self.say(b"250 2.0.0 taken\r\n")
            elif verb == "QUIT":
                await self.say(b"221 2.0.0 bye\r\n")
                return
            else:
                await self.say(b"250 2.0.0 ok\r\n")


def within(line: str) -> str:
    """The address between the angle brackets."""
    return line[line.index("<") + 1 : line.index(">")]


Script = Callable[[Talk], Awaitable[None]]


async def behaving(talk: Talk) -> None:
    """A good relay."""
    await talk.normally()


class ScriptedRelay:
    """A relay that does to each connection what `script` says; `taken` are the contents that it has read to the end,
    `commands` all other lines."""

    def __init__(self, background: Background, script: Script = behaving) -> None:
        self.script = script
        self.taken: list[Taken] = []
        self.commands: list[str] = []
        self.connections = 0
        self.stopped = asyncio.Event()
        self._background = background
        self._talks: set[asyncio.StreamWriter] = set()
        self._server = background.run(self._start())
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _start(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 24)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._talks.add(writer)
        try:
            await self.script(Talk(self, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._talks.discard(writer)
            writer.close()

    def taken_for(self, recipient: str) -> list[Taken]:
        """What it took for one recipient."""
        return [one for one in list(self.taken) if recipient in one.recipients]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it on the relay's loop; what it returns."""
        return self._background.run(work)

    def stop(self) -> None:
        """Close everything."""
        self._background.run(self._stop())

    async def _stop(self) -> None:
        self._server.close()
        self.stopped.set()
        for writer in list(self._talks):
            writer.transport.abort()
        await self._server.wait_closed()
