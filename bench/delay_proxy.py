"""A line with a delay between an SMTP client and its server, which counts flights (netem is not assumed).

A *flight* is a run of octets from the client with nothing from the server let through in between: what a client writes
after it has waited for a reply, however many segments that takes. Flights a message are its round trips.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

#: How much of a flight is kept, to know it by its first command.
_BEGINNING = 16

#: Pieces under way in one direction; then the sender has to wait.
_PIECES = 1000
_PIECE_BYTES = 64 * 1024

Note = Callable[[bytes, float], None]


@dataclass
class Flights:
    """The flights of one connection: tell it what the client has sent and what the client is about to receive."""

    beginnings: list[bytes] = field(default_factory=list)
    client_octets: int = 0
    server_octets: int = 0
    began: float = 0.0  # when the first flight with MAIL came
    ended: float = 0.0  # when the client last got a reply to anything but QUIT
    _answered: bool = True
    _written: float = 0.0  # when the flight that is being written began

    def client_sent(self, data: bytes, at: float) -> None:
        """`data` has come from the client at `at` (seconds)."""
        self.client_octets += len(data)
        if self._answered:
            self.beginnings.append(b"")
            self._answered, self._written = False, at
        if len(self.beginnings[-1]) < _BEGINNING:
            self.beginnings[-1] = (self.beginnings[-1] + data)[:_BEGINNING]
        if not self.began and self.beginnings[-1][:4].upper() == b"MAIL":
            self.began = self._written

    def server_said(self, data: bytes, at: float) -> None:
        """`data` goes to the client at `at` (seconds)."""
        self.server_octets += len(data)
        self._answered = True
        if self.began and not self._is_closing(self.beginnings[-1]):
            self.ended = at

    @staticmethod
    def _is_closing(beginning: bytes) -> bool:
        return beginning.upper() == b"QUIT\r\n"

    @property
    def opening(self) -> int:
        """Flights before the first MAIL: EHLO, STARTTLS, AUTH."""
        return next((n for n, one in enumerate(self.beginnings) if one[:4].upper() == b"MAIL"), len(self.beginnings))

    @property
    def closing(self) -> int:
        """Flights with QUIT alone."""
        return sum(1 for one in self.beginnings[self.opening :] if self._is_closing(one))

    @property
    def transactions(self) -> int:
        """All others: envelopes, contents, RSET."""
        return len(self.beginnings) - self.opening - self.closing

    @property
    def seconds(self) -> float:
        """From the first MAIL to the last reply."""
        return max(0.0, self.ended - self.began)

    def figures(self) -> dict[str, float]:
        """As the process prints it."""
        return {
            "opening": self.opening,
            "transactions": self.transactions,
            "closing": self.closing,
            "seconds": round(self.seconds, 4),
            "client_octets": self.client_octets,
            "server_octets": self.server_octets,
        }


class DelayProxy:
    """Listens between `start` and `stop`; each octet comes out `delay_seconds` after it went in, in order.

    `connections` has the flights of each connection that was made. Connecting itself is not delayed.
    """

    def __init__(self, target_port: int, delay_seconds: float, host: str = "127.0.0.1") -> None:
        self.port = 0
        self.connections: list[Flights] = []
        self._target = (host, target_port)
        self._delay = delay_seconds
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> None:
        """Listen on `port` of 127.0.0.1; 0 takes any that is free."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and every connection."""
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flights = Flights()
        self.connections.append(flights)
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as group:
                self._carry(group, reader, far_writer, arrived=flights.client_sent)
                self._carry(group, far_reader, writer, released=flights.server_said)
        except* OSError:
            pass  # a side that broke off ends both, as on a line
        finally:
            for one in writers:
                one.close()
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    def _carry(
        self,
        group: asyncio.TaskGroup,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        arrived: Note | None = None,
        released: Note | None = None,
    ) -> None:
        """One direction; an end of the stream travels as the octets do."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES)
        now = asyncio.get_running_loop().time

        async def take() -> None:
            data = b"-"
            while data:
                data = await reader.read(_PIECE_BYTES)
                if data and arrived is not None:
                    arrived(data, now())
                await under_way.put((now() + self._delay, data))

        async def release() -> None:
            while True:
                due, data = await under_way.get()
                if (wait := due - now()) > 0:
                    await asyncio.sleep(wait)
                if not data:
                    writer.write_eof()
                    return
                if released is not None:
                    released(data, now())
                writer.write(data)
                await writer.drain()

        group.create_task(take())
        group.create_task(release())


async def _run(port: int, target_port: int, delay_seconds: float) -> None:
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    proxy = DelayProxy(target_port, delay_seconds)
    await proxy.start(port)
    await ending.wait()
    await proxy.stop()
    print(json.dumps([flights.figures() for flights in proxy.connections]))


def main() -> None:
    """`python -m bench.delay_proxy`: until SIGTERM; then the flights of every connection as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", type=int, required=True, metavar="PORT")
    parser.add_argument("--delay-ms", type=float, default=25.0, help="each way")
    options = parser.parse_args()
    asyncio.run(_run(options.port, options.to, options.delay_ms / 1000))


if __name__ == "__main__":
    main()
