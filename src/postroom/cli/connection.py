"""How commands reach the gateway: the running one by its control socket, else one opened here for the while.

Both ways the same routes of `/v1` are asked, so a command does not know the difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from .. import errors
from ..errors import Fault, GatewayError, InvalidInput, NotRunning
from . import options

if TYPE_CHECKING:
    import httpx2

    from ..config import Settings

T = TypeVar("T")

#: How long a command waits for another command, or a gateway that is just starting, to let the data folder go.
PATIENCE_SECONDS = 5.0
_LOOK_SECONDS = 0.05

#: How long one answer may take; only waiting for the queue to drain takes longer.
ANSWER_SECONDS = 60.0

Parameters = Sequence[tuple[str, str]]


class GatewayClient:
    """The gateway as a command sees it; `is_running`: it is a process of its own that delivers."""

    def __init__(self, http: httpx2.AsyncClient, live: httpx2.AsyncClient | None = None, *, is_running: bool) -> None:
        self._http = http
        self._live = live or http  # for what is told bit by bit
        self.is_running = is_running

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        parameters: Parameters = (),
        raw: bytes | AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        patience_seconds: float = ANSWER_SECONDS,
    ) -> Any:
        """What a route answers: JSON, or octets of a message; `raw` is a message to hand over, with `headers`.

        Raises:
            GatewayError: the one that the gateway raised; NotRunning when it does not answer.
        """
        import httpx2

        given: dict[str, Any] = {"params": list(parameters), "timeout": patience_seconds}
        if raw is not None:
            given |= {"content": raw, "headers": {"content-type": "message/rfc822", **headers}}
        elif body is not None:
            given["json"] = body
        try:
            response = await self._http.request(method, path, **given)
        except httpx2.TimeoutException:
            raise NotRunning(f"the gateway did not answer within {patience_seconds:g} seconds") from None
        except httpx2.TransportError as error:
            raise NotRunning(f"the gateway ended while it was asked: {error}") from None
        if response.is_error:
            raise _error(response)
        if response.headers.get("content-type", "").startswith("application/json"):
            return response.json()
        return response.content

    async def follow(self, path: str, body: Any) -> AsyncIterator[dict[str, Any]]:
        """What a route tells bit by bit, as it comes. Raises as `ask`."""
        import json

        import httpx2

        waiting = httpx2.Timeout(ANSWER_SECONDS, read=None)  # a stage takes as long as the account's own timeouts say
        accept = {"accept": "application/x-ndjson"}
        try:
            async with self._live.stream("POST", path, json=body, headers=accept, timeout=waiting) as response:
                if response.is_error:
                    await response.aread()
                    raise _error(response)
                async for line in response.aiter_lines():
                    yield json.loads(line)
        except httpx2.TransportError as error:
            raise NotRunning(f"the gateway ended while it was asked: {error}") from None


def _error(response: httpx2.Response) -> GatewayError:
    """The error that a problem tells (RFC 9457)."""
    try:
        problem = response.json()
    except ValueError:
        return GatewayError(f"the gateway answered {response.status_code}")
    name = problem.get("type", "").rpartition(":")[2].replace("-", "")
    classes = {cls.__name__.lower(): cls for cls in errors.EDGES}
    cls = classes.get(name, GatewayError)
    if issubclass(cls, InvalidInput):
        return cls([Fault(one["field"], one["fault"], one["mend"]) for one in problem.get("errors", ())])
    return cls(problem.get("detail", f"the gateway answered {response.status_code}"))


def run(data: Path | None, work: Callable[[GatewayClient], Awaitable[T]]) -> T:
    """Do `work` on the gateway of the data folder.

    Raises:
        GatewayError: what `work` raised, or why the gateway can't be reached.
    """
    settings = options.settings(data)

    async def connected() -> T:
        async with _connected(settings) as client:
            return await work(client)

    return asyncio.run(connected())


def ask(data: Path | None, method: str, path: str, body: Any = None, *, parameters: Parameters = ()) -> Any:
    """Ask one route; see `GatewayClient.ask`."""
    return run(data, lambda client: client.ask(method, path, body, parameters=parameters))


@contextlib.asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[GatewayClient]:
    from ..config.folder import FolderLock, make_data_folder

    if not _answers(settings.control_socket):
        make_data_folder(settings.data)
        lock = FolderLock(settings.data)
        if await _taken(lock, settings.control_socket):
            with contextlib.closing(_GivenBack(lock)):
                async with _in_process(settings) as client:
                    yield client
            return
    async with _over_socket(settings.control_socket) as client:
        yield client


class _GivenBack:
    def __init__(self, lock: Any) -> None:
        self.close = lock.give_back


async def _taken(lock: Any, path: Path) -> bool:
    """Whether the folder is ours now; False when a gateway answers on its socket after all."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while not lock.take():
        if _answers(path):
            return False
        if asyncio.get_running_loop().time() > deadline:
            who = lock.holder_in_words()
            raise NotRunning(
                f"a process{who} uses the data folder {path.parent} and does not answer on {path.name}: "
                "wait until it has started or ended; if it hangs, end it and try again"
            )
        await asyncio.sleep(_LOOK_SECONDS)
    return True


def _answers(path: Path) -> bool:
    """Whether somebody listens on the control socket."""
    from ..config.folder import reachable

    if not path.exists():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, reachable(path) as name:
        probe.settimeout(PATIENCE_SECONDS)
        try:
            probe.connect(name)
        except PermissionError:
            fault = f"the gateway of {path.parent} belongs to another user"
            raise NotRunning(f"{fault}: run the command as that user, or as root") from None
        except OSError:
            return False
    return True


@contextlib.asynccontextmanager
async def _over_socket(path: Path) -> AsyncIterator[GatewayClient]:
    import httpx2

    from ..config.folder import reachable

    with reachable(path) as name:
        # No TLS on a Unix socket; to read the system's authorities for it takes longer than all else.
        transport = httpx2.AsyncHTTPTransport(uds=name, verify=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://postroom") as http:
            yield GatewayClient(http, is_running=True)


@contextlib.asynccontextmanager
async def _in_process(settings: Settings) -> AsyncIterator[GatewayClient]:
    """A gateway that takes mail and commands but delivers nothing."""
    import os

    import httpx2

    from ..api import create_app
    from ..daemon.first_start import provision
    from ..daemon.logs import configure_logs
    from ..gateway import Gateway
    from ..model.submission import Door
    from .live_answers import LiveTransport

    os.umask(0o077)
    configure_logs("warning", "auto")
    gateway = await Gateway.open(settings)
    try:
        await provision(gateway)
        await gateway.start(deliver=False)
        app = create_app(gateway, Door.CLI)
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with (
            httpx2.AsyncClient(transport=transport, base_url="http://postroom") as http,
            httpx2.AsyncClient(transport=LiveTransport(app), base_url="http://postroom") as live,
        ):
            yield GatewayClient(http, live, is_running=False)
    finally:
        await gateway.stop()
