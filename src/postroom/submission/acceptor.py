"""Takes connections from a listening socket; goes on when there is no descriptor for the next one.

The loops' own servers either close what they can't take or ask again without end (libuv, once even its spare descriptor
is gone), so the listening socket is left alone for a second instead: clients wait in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

import structlog

from ..model.clock import Clock, Timer

_log = structlog.get_logger()

#: Connections that wait in the kernel until they are taken, and how many are taken in one turn of the loop.
BACKLOG = 1024
AT_ONCE = 64

#: How long nothing is taken after the system had no room for a connection.
PAUSE_SECONDS = 1.0

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def listening_socket(address: str, port: int) -> socket.socket:
    """A socket bound to an IP address, listening; OSError if it can't be."""
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE)
    family, _, _, _, where = found[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(where)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


class Acceptor:
    """Gives each connection of a listening socket to a protocol that `make` makes, until stopped."""

    def __init__(self, listening: socket.socket, make: Callable[[], asyncio.Protocol], clock: Clock) -> None:
        self._listening = listening
        self._make = make
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: Timer | None = None
        self.address: tuple[str, int] = listening.getsockname()[:2]
        self._go_on()

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                self._loop.remove_reader(self._listening)
                self._pause = self._clock.call_later(PAUSE_SECONDS, self._go_on)
                _log.error("no_descriptor_for_a_connection", reason=error.strerror, waits_seconds=PAUSE_SECONDS)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, connection)
        except OSError as error:
            _log.info("connection_gone", reason=str(error))
            connection.close()

    async def stop(self) -> None:
        """Take no more; those that were taken have their protocols then. Safe to call twice."""
        if self._listening.fileno() < 0:
            return
        self._loop.remove_reader(self._listening)
        if self._pause is not None:
            self._pause.cancel()
        self._listening.close()
        if self._opening:
            await asyncio.wait(self._opening)
