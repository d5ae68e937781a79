"""The control socket: the routes of `/v1` on a Unix socket that only this user and root may use."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..config.folder import reachable
from ..errors import NotRunning
from ..model.submission import Door
from . import create_app

if TYPE_CHECKING:
    from ..gateway import Gateway

_log = structlog.get_logger()

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_END_PATIENCE_SECONDS = 1


class _OwnerOnly(H11Protocol):
    """Closes connections of other users before a byte is read; the socket's mode keeps them out where that counts."""

    def connection_made(self, transport: Any) -> None:
        connection = transport.get_extra_info("socket")
        if not _may_connect(connection):
            _log.warning("control_peer_refused")
            transport.abort()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if hasattr(self, "transport") and self.transport is not None:
            super().connection_lost(exc)


def _may_connect(connection: socket.socket) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid = _CREDENTIALS.unpack(credentials)[1]
    return uid in (0, os.geteuid())


class _Server(uvicorn.Server):
    """uvicorn in a loop that is not its own: signals are the daemon's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the handlers as they are."""
        yield


class ControlSocket:
    """Serves the API of `gateway` on the socket at `path`; the caller holds the data folder's lock."""

    def __init__(self, gateway: Gateway, path: Path) -> None:
        self._path = path
        app = create_app(gateway, Door.CLI)
        config = uvicorn.Config(
            app,
            http=_OwnerOnly,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_END_PATIENCE_SECONDS,
        )
        self._server = server = _Server(config)
        app.state.is_ending = lambda: server.should_exit
        self._serving: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Listen; commands wait in the socket's queue from now on, and are served by a task of `group`.

        Raises:
            NotRunning: the socket can't be made.
        """
        try:
            self._listener = _listen(self._path)
        except OSError as error:
            raise NotRunning(f"the control socket {self._path} can't be made: {error.strerror or error}") from None
        self._serving = group.create_task(self._server.serve([self._listener]), name="control socket")

    async def stop(self) -> None:
        """End requests under way and remove the socket."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        if self._listener is not None:
            self._path.unlink(missing_ok=True)


def _listen(path: Path) -> socket.socket:
    """A listening socket at `path`, mode 0600 from its first moment; what an ended process left there is removed."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        with reachable(path) as name:
            listener.bind(name)
        listener.listen(128)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener
