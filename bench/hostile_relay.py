"""A hostile relay, in a process of its own: a port for each attack at each stage; it counts what it sees.

`python -m bench.hostile_relay` prints its ports as JSON and its counts for each line of input; at the line `leave` it
hangs up everywhere. It ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

STAGES = ("greeting", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "end of data")

#: Where a flood stops by itself, for each connection.
OFFERED_BYTES = 64 * 2**20

#: Between two octets of a drip.
_DRIP_SECONDS = 0.001

_GOOD = {
    "greeting": b"220 relay.example ESMTP\r\n",
    "EHLO": b"250-relay.example\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n",
    "AUTH": b"235 2.7.0 welcome\r\n",
    "DATA": b"354 go on\r\n",
    "end of data": b"250 2.0.0 taken\r\n",
    "QUIT": b"221 bye\r\n",
}
_OK = b"250 2.0.0 ok\r\n"

#: Nonsense, contradictions, and replies that nobody asked for.
_LIES = {
    "greeting": b"HTTP/1.1 400 Bad Request\r\n",
    "EHLO": b"250-yes\r\n550 no\r\n",
    "AUTH": b"\x15\x03\x01\x00\x02\x02\x0a\r\n",
    "MAIL": b"250 yes\r\n250 late\r\n",
    "RCPT": b"250 yes\r\n250 late\r\n250 later\r\n",
    "DATA": b"354 go on\r\n250 2.0.0 taken\r\n",
    "end of data": b"250-yes\r\n550 no\r\n",
}


@dataclass
class Seen:
    """What one port saw: the octets are those that the kernel took for the gateway; `most` is of one connection."""

    connections: int = 0
    logins: int = 0
    envelopes: int = 0
    octets: int = 0
    most: int = 0


class Session:
    """One connection: good until `stage`."""

    def __init__(self, attack: str, stage: str, seen: Seen, ends: tuple[asyncio.StreamReader, asyncio.StreamWriter]):
        self._attack = ATTACKS[attack]
        self._stage = stage
        self.seen = seen
        self.reader, self.writer = ends
        self._octets = 0

    async def say(self, octets: bytes) -> None:
        """Write, and wait until the kernel has taken it."""
        self.writer.write(octets)
        await self.writer.drain()
        self._octets += len(octets)
        self.seen.octets += len(octets)
        self.seen.most = max(self.seen.most, self._octets)

    async def run(self) -> None:
        """The whole of it."""
        self.seen.connections += 1
        if not await self._answer("greeting"):
            return
        while line := await self.reader.readline():
            verb = line[:4].upper().decode("ascii", "replace")
            self.seen.logins += verb == "AUTH"
            self.seen.envelopes += verb == "MAIL"
            goes_on = await self._answer(verb)
            # Whoever has heard 354 sends a content, be it an empty one.
            if goes_on and verb == "DATA":
                while (line := await self.reader.readline()) not in (b".\r\n", b""):
                    pass
                goes_on = await self._answer("end of data")
            if not goes_on or verb == "QUIT":
                return

    async def _answer(self, stage: str) -> bool:
        """Reply or attack; whether the session goes on."""
        if stage == self._stage:
            return await self._attack(self, stage)
        await self.say(_GOOD.get(stage, _OK))
        return True


async def _behaves(session: Session, stage: str) -> bool:
    await session.say(_GOOD.get(stage, _OK))
    return True


async def _closes(session: Session, stage: str) -> bool:
    return False


async def _resets(session: Session, stage: str) -> bool:
    session.writer.transport.abort()
    return False


async def _stalls(session: Session, stage: str) -> bool:
    await session.reader.read(-1)
    return False


async def _floods(session: Session, stage: str) -> bool:
    lines = b"%s-more of it\r\n" % _GOOD.get(stage, _OK)[:3] * 1000
    for _ in range(OFFERED_BYTES // len(lines)):
        await session.say(lines)
        await asyncio.sleep(0)
    return False


async def _drips(session: Session, stage: str) -> bool:
    await session.say(_GOOD.get(stage, _OK)[:3] + b"-")
    while not session.writer.transport.is_closing():
        await session.say(b"x")
        await asyncio.sleep(_DRIP_SECONDS)
    return False


async def _lies(session: Session, stage: str) -> bool:
    await session.say(_LIES[stage])
    return True


async def _says_yes(session: Session, stage: str) -> bool:
    """250 to that and to all that comes."""
    await session.say(_OK)
    while await session.reader.readline():
        await session.say(_OK)
    return False


async def _says_wrong_codes(session: Session, stage: str) -> bool:
    await session.say(b"221 bye\r\n" if stage == "DATA" else b"354 go on\r\n")
    return True


async def _refuses(session: Session, stage: str) -> bool:
    """Each recipient, and takes the content all the same."""
    await session.say(b"450 4.2.0 greylisted\r\n")
    return True


ATTACKS: dict[str, Callable[[Session, str], Awaitable[bool]]] = {
    "close": _closes,
    "reset": _resets,
    "stall": _stalls,
    "flood": _floods,
    "drip": _drips,
    "lie": _lies,
    "250 to everything": _says_yes,
    "wrong codes": _says_wrong_codes,
    "354 after refusals": _refuses,
    "honest": _behaves,
}

#: Those that are for one stage alone.
ONE_STAGE = {"354 after refusals": "RCPT", "honest": "MAIL"}


def cells() -> list[tuple[str, str]]:
    """Each attack with each of its stages."""
    return [(attack, stage) for attack in ATTACKS for stage in STAGES if ONE_STAGE.get(attack, stage) == stage]


async def listen(attack: str, stage: str, seen: Seen, held: set[asyncio.StreamWriter]) -> tuple[asyncio.Server, int]:
    """Open one port, whose connections are in `held`; the server and the port's number."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # What is written is then what the kernel took, all but a little.
        writer.transport.set_write_buffer_limits(0)
        held.add(writer)
        with suppress(OSError, ValueError):
            await Session(attack, stage, seen, (reader, writer)).run()
        held.discard(writer)
        writer.close()

    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    return await asyncio.start_server(serve, sock=listening), int(listening.getsockname()[1])


async def main() -> None:
    """Serve until the input ends."""
    seen = {f"{attack} at {stage}": Seen() for attack, stage in cells()}
    held: set[asyncio.StreamWriter] = set()
    opened = {}
    for attack, stage in cells():
        name = f"{attack} at {stage}"
        opened[name] = await listen(attack, stage, seen[name], held)
    print(json.dumps({name: port for name, (_, port) in opened.items()}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line == "leave\n":
            for writer in held:
                writer.transport.abort()
        print(json.dumps({name: asdict(counts) for name, counts in seen.items()}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
