"""A TCP proxy in front of a relay: what went over each connection, in order, and what went in one flight."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field


@dataclass
class Recorded:
    """One connection: pieces in the order in which they came; True: from the client."""

    pieces: list[tuple[bool, bytes]] = field(default_factory=list)

    @property
    def flights(self) -> list[bytes]:
        """What the client wrote, cut where the relay said something in between."""
        flights = [b""]
        for from_client, data in self.pieces:
            if from_client:
                flights[-1] += data
            elif flights[-1]:
                flights.append(b"")
        return flights

    @property
    def commands(self) -> bytes:
        """All that the client wrote."""
        return b"".join(self.flights)

    @property
    def replies(self) -> bytes:
        """All that the relay wrote."""
        return b"".join(data for from_client, data in self.pieces if not from_client)


class RecordingProxy:
    """Hands on to `relay_port` what comes at `port`, between `start` and `stop`.

    The first 354 waits until `let_content_go`: the moment to have more messages ready.
    """

    def __init__(self, relay_port: int) -> None:
        self._relay_port = relay_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[Recorded] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._gate = threading.Event()

    def start(self) -> None:
        """Listen."""
        self._in_thread(self._accept)

    def stop(self) -> None:
        """End all connections."""
        self._gate.set()
        for end in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in [self._listener, *self._sockets]:
            end.close()

    def let_content_go(self) -> None:
        """The client hears the 354."""
        self._gate.set()

    def _in_thread(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                relay = socket.create_connection(("127.0.0.1", self._relay_port))
                recorded = Recorded()
                self.connections.append(recorded)
                self._sockets += [client, relay]
                self._in_thread(self._pump, recorded, client, relay, True)
                self._in_thread(self._pump, recorded, relay, client, False)

    def _pump(self, recorded: Recorded, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        # Recorded before it goes on: the other side's answer can't be in front of it.
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if not from_client and b"354 " in data:
                    self._gate.wait()
                recorded.pieces.append((from_client, data))
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
