"""`postroom serve`: one process, one loop, one task group (DESIGN section 10)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import NoReturn

import structlog

from ..api.control import ControlSocket
from ..config import ListenerSettings, Settings
from ..config.folder import SERVE, FolderLock, make_data_folder
from ..diagnosis.ports import describe_holder
from ..errors import GatewayError, InvalidInput, NotRunning, StorageFailed, edge
from ..gateway import Gateway
from ..policy import classify
from ..submission.listener import Listener, clients_of
from .descriptors import room_for_clients
from .first_start import provision
from .hints import first_message
from .logs import configure_logs

_log = structlog.get_logger()

#: Young objects after which the collector looks, and how many such looks until it looks further: at thousands of
#: messages a second the default (700, 10, 10) costs a twentieth of the time and finds nothing.
COLLECTOR = (50_000, 20, 50)

#: The process ends within 5 seconds of the signal (DESIGN section 10): first the doors, then the lanes.
DOORS_SECONDS = 1.0
LANES_SECONDS = 3.3


def run(settings: Settings, *, hints: bool = False) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        GatewayError: the gateway can't be started; the text says why and what to do.
    """
    os.umask(0o077)
    configure_logs(settings.log_level, settings.log_format)
    room = room_for_clients()
    make_data_folder(settings.data)
    with FolderLock(settings.data, SERVE), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(_serve(settings, hints, room))
        except BaseExceptionGroup as group:  # what ends the body of the task group comes wrapped
            if len(group.exceptions) == 1 and isinstance(group.exceptions[0], GatewayError):
                raise group.exceptions[0] from None
            raise


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on every platform; plain asyncio does the same, more slowly
        return None
    return uvloop.new_event_loop


async def _serve(settings: Settings, hints: bool, room: Callable[[int], int]) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    broken: list[BaseException] = []

    def on_broken(error: BaseException) -> None:
        broken.append(error)
        ending.set()

    gateway = await Gateway.open(settings, on_broken=on_broken)
    try:
        _follow_log_settings(gateway)
        await provision(gateway)
        await gateway.start(paused=True)
        async with asyncio.TaskGroup() as group, _doors(gateway, group, room) as listeners:
            gateway.follow_switch()  # a start that fails at a port has sent nothing
            loop.add_signal_handler(signal.SIGHUP, lambda: group.create_task(_reload(gateway)))
            _say_ready(settings, listeners, hints)
            group.create_task(asyncio.to_thread(classify.load))
            # What start-up made stays: it need not be looked at again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*COLLECTOR)
            await ending.wait()
            _log.info("ending")
    finally:
        try:
            await asyncio.wait_for(gateway.stop(), LANES_SECONDS)
        except TimeoutError:
            # What is still being sent is marked at the next start, as after a crash.
            _log.warning("ended_before_all_was_sent")
    if broken:
        _leave(broken[0])


def _leave(error: BaseException) -> NoReturn:
    """End as a crash does: every other way lets SQLite close the file, with syncs of what could not be synced."""
    told = StorageFailed(f"the store has failed and the gateway has left: {error}")
    kept = "what was acknowledged is kept, unless the database is damaged, which the start says"
    mend = f"look at the disk and the kernel's log, then start again: {kept}"
    with contextlib.suppress(OSError):
        print(f"postroom: {told}; {mend}", file=sys.stderr, flush=True)
    os._exit(edge(told).exit_status)


@contextlib.asynccontextmanager
async def _doors(
    gateway: Gateway, group: asyncio.TaskGroup, room: Callable[[int], int]
) -> AsyncIterator[list[Listener]]:
    """Listeners and control socket, open inside the block; `room` is for how many connections of clients."""
    smtp = gateway.settings.smtp
    clients = clients_of(smtp, lambda: room(gateway.settings.max_connections_in_all))
    control = ControlSocket(gateway, gateway.settings.control_socket)
    listeners: list[Listener] = []

    def follow(_: Settings, after: Settings) -> None:
        clients.change(after.smtp.max_connections_per_client, after.smtp.max_login_failures_per_minute)
        for listener in listeners:
            listener.change(after.smtp)

    gateway.configuration.on_change.append(follow)
    try:
        for wanted in smtp.listeners:
            listener = Listener(gateway, wanted, smtp, hostname=gateway.hostname, clients=clients)
            await _start(listener, wanted)
            listeners.append(listener)
        await control.start(group)
        yield listeners
    finally:
        await asyncio.gather(control.stop(), *(listener.stop(DOORS_SECONDS) for listener in listeners))


async def _start(listener: Listener, wanted: ListenerSettings) -> None:
    try:
        await listener.start()
    except InvalidInput as error:
        cause = error.__cause__
        at = f"port {wanted.port} of {wanted.address}"
        if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
            mend = "end that process, or choose another port: POSTROOM_SMTP__LISTENERS='[{\"port\": 2526}]'"
            raise NotRunning(f"{at} is {describe_holder(wanted.port)}; {mend}") from None
        if isinstance(cause, OSError) and cause.errno == errno.EACCES:
            raise NotRunning(f"{at} is for root alone; choose a port over 1023") from None
        raise


def _follow_log_settings(gateway: Gateway) -> None:
    """Log as the settings say, which may be stored ones, now and after each change."""

    def follow(_: Settings, after: Settings) -> None:
        configure_logs(after.log_level, after.log_format)

    follow(gateway.settings, gateway.settings)
    gateway.configuration.on_change.append(follow)


async def _reload(gateway: Gateway) -> None:
    """SIGHUP: file and environment again; a fault leaves everything as it was. Certificates need no signal."""
    try:
        done = await gateway.configuration.reload(Settings.load(gateway.settings.data))
    except GatewayError as error:
        _log.error("reload_refused", reason=str(error))
        return
    _log.info("reloaded", changed=done.changed, need_a_restart=done.waiting)


def _say_ready(settings: Settings, listeners: list[Listener], hints: bool) -> None:
    places = [
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in (one.address for one in listeners)
    ]
    _say(f"postroom is ready: SMTP on {', '.join(places) or 'no listener'}, data in {settings.data.resolve()}")
    plain = [
        one.address for wanted, one in zip(settings.smtp.listeners, listeners, strict=True) if wanted.tls == "none"
    ]
    if hints and plain:
        _say(first_message(settings, *plain[0]))


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody need listen
        print(text, flush=True)
