"""Each timing of an account: on a clock that the test moves, and against a relay that says nothing on the real one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.account import Account, AccountKind, Security
from postroom.model.content import StagedBody
from postroom.model.envelope import Envelope
from postroom.model.outcome import Deferred, Delivered, Outcome, Scope
from postroom.model.queue import LaneId
from postroom.net.smtp_client import ConnectFailed, connect
from postroom.net.stream import Address
from postroom.transports import AccountUnavailable, Transaction
from postroom.transports.budget import ConnectionBudget
from postroom.transports.smtp import SmtpTransport
from tests.flow.conftest import FakeClock, Room
from tests.flow.gateways import hello
from tests.flow.smtp_client.talk import Line, Relay, commands, open_to, start
from tests.smarthost import Behaviour, Smarthost


class MovedLoop(asyncio.SelectorEventLoop):
    """A loop whose timers go by a clock that the test sets forward."""

    ahead = 0.0

    def time(self) -> float:
        """See `asyncio.AbstractEventLoop.time`."""
        return super().time() + self.ahead


async def pass_seconds(seconds: float) -> None:
    """Set the loop's clock forward; what comes due is done when this returns."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MovedLoop)
    loop.ahead += seconds
    await settled()


async def settled() -> None:
    """Let the loop do what there is to do."""
    for _ in range(20):
        await asyncio.sleep(0)


def on_moved_time(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` on such a loop."""
    with asyncio.Runner(loop_factory=MovedLoop) as runner:
        runner.run(work)


async def ends_after(work: Awaitable[Any], seconds: float) -> Any:
    """The result of `work`, which is there as soon as `seconds` have passed, and not half a minute before."""
    task = asyncio.ensure_future(work)
    await settled()
    await pass_seconds(seconds - 30)
    assert not task.done()
    await pass_seconds(30)
    return await task


# On a clock that the test moves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mute", ["resolver", "TLS"])
def test_the_connect_timeout_spans_resolution_and_tls(mute: str) -> None:
    async def answer(host: str, port: int) -> list[Address]:
        if mute == "resolver":
            await asyncio.Event().wait()
        return [(socket.AF_INET, ("127.0.0.1", port))]

    async def work() -> None:
        # The kernel takes connections for a listener that nobody serves.
        with socket.create_server(("127.0.0.1", 0)) as silent:
            account = Account(
                id=1, name="relay", kind=AccountKind.SMTP, host="relay.test", port=silent.getsockname()[1],
                security=Security.TLS, connect_timeout=timedelta(seconds=90),
            )  # fmt: skip
            with pytest.raises(ConnectFailed, match="no connection to relay.test within 1m 30s") as failed:
                await ends_after(connect(account, helo_name="client.test", resolver=answer), 90)
            assert (failed.value.stage, failed.value.kind) == ("resolve" if mute == "resolver" else "tls", "network")

    on_moved_time(work())


@pytest.mark.parametrize("after", ["connecting", "greeting", "MAIL", "content"])
def test_command_timeout_and_end_of_data_timeout(after: str) -> None:
    async def talk(line: Line) -> None:
        if after == "greeting":
            line.say("220 relay.test")
        elif after != "connecting":
            await line.greet("PIPELINING")
        if after == "content":
            await line.expect(*commands(0))
            line.say("250 ok", "250 ok", "354 go")
            await line.content()
        await line.end()

    async def work() -> None:
        minutes = {"command_timeout": timedelta(minutes=1), "end_of_data_timeout": timedelta(minutes=10)}
        async with Relay(talk) as relay:
            if after in ("connecting", "greeting"):
                with pytest.raises(ConnectFailed, match="no reply within 60 s"):
                    await ends_after(open_to(relay, **minutes), 60)
                return
            connection = await open_to(relay, **minutes)
            sent = start(connection, 0)
            while connection.machine.awaits_final_reply != (after == "content"):
                await asyncio.sleep(0)
            result = await ends_after(sent, 600 if after == "content" else 60)
            assert (result.error_kind, result.content_written) == ("timeout", after == "content")
            assert result.error.endswith("within 10m" if after == "content" else "within 60 s")

    on_moved_time(work())


async def no_chunks(_: StagedBody) -> AsyncIterator[bytes]:
    """No message here is staged."""
    for chunk in list[bytes]():
        yield chunk


@asynccontextmanager
async def sending(behaviour: Behaviour, **fields: Any) -> AsyncIterator[tuple[SmtpTransport, Smarthost, FakeClock]]:
    """A transport on a clock that stands, and its relay."""
    smarthost, clock = Smarthost(behaviour), FakeClock()
    await smarthost.start()
    account = Account(
        id=1, name="relay", kind=AccountKind.SMTP, host="127.0.0.1", port=smarthost.port, security=Security.NONE,
        max_connections=1, **fields,
    )  # fmt: skip
    transport = SmtpTransport(
        account, clock=clock, budget=ConnectionBudget(10), helo_name="c.test", chunks=no_chunks
    )  # fmt: skip
    try:
        yield transport, smarthost, clock
    finally:
        closing = asyncio.ensure_future(transport.close())
        await settled()
        clock.advance(timedelta(minutes=1))
        await closing
        await smarthost.stop()


async def send(transport: SmtpTransport) -> Outcome:
    """One message from slot to commit."""
    slot = await transport.reserve()
    (outcome,) = await slot.deliver(Transaction(Envelope("a@x.test", ("b@y.test",)), b"S: 1\r\n\r\n", b"x\r\n", 11))
    slot.settle()
    slot.durable()
    return outcome


async def test_the_reconnect_interval_is_waited_after_an_unexpected_close_and_counts_as_no_failure() -> None:
    behaviour = Behaviour(close_after="MAIL", closes=1)
    async with sending(behaviour, reconnect_interval=timedelta(seconds=7)) as (transport, smarthost, clock):
        assert isinstance(await send(transport), Deferred)
        sent = asyncio.ensure_future(send(transport))
        await settled()
        assert clock.waiting[0] == 7.0
        clock.advance(timedelta(seconds=6.9))
        await settled()
        assert smarthost.connections == 1
        clock.advance(timedelta(seconds=0.1))
        assert isinstance(await sent, Delivered)
        assert smarthost.connections == 2


async def test_a_connection_that_has_been_idle_for_its_time_is_ended() -> None:
    async with sending(Behaviour(), idle_timeout=timedelta(seconds=40)) as (transport, smarthost, clock):
        await send(transport)
        clock.advance(timedelta(seconds=39))
        await send(transport)
        clock.advance(timedelta(seconds=39))
        await settled()
        assert "QUIT" not in smarthost.commands
        clock.advance(timedelta(seconds=1))
        while "QUIT" not in smarthost.commands:
            await asyncio.sleep(0)
        assert smarthost.connections == 1


async def test_connect_retry_is_waited_after_a_first_connect_that_failed(room: Room) -> None:
    """A second failure in a row is followed by the sleep of the schedule."""
    (account,) = room.accounts
    transport = room.transports[account.name]
    failure = AccountUnavailable(Deferred(status="4.4.1", reason="nobody there", scope=Scope.ACCOUNT))
    transport.answers.extend([failure, failure])
    await room.submit("b@y.test")

    async def has_tried(times: int) -> None:
        while len(transport.answers) > 2 - times or room.scheduler.circuit(LaneId(account.id)).may_send:
            await asyncio.sleep(0)

    await has_tried(1)
    assert account.connect_retry.total_seconds() in room.clock.waiting
    room.clock.advance(account.connect_retry - timedelta(seconds=1))
    await settled()
    assert len(transport.answers) == 1
    room.clock.advance(timedelta(seconds=1))
    await has_tried(2)
    assert 60.0 in room.clock.waiting
    room.clock.advance(timedelta(minutes=1))
    while not transport.sent:
        await asyncio.sleep(0)


# Against a relay that says nothing --------------------------------------------------------------------------------

SOON = "100ms"
IMPATIENT = {"connect_timeout": SOON, "command_timeout": SOON, "end_of_data_timeout": SOON}
PATIENT = {"connect_timeout": "30s", "command_timeout": "60s", "end_of_data_timeout": "10m"}

Delivering = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def delivering(tmp_path: Path) -> AsyncIterator[Delivering]:
    """`delivering(port, **fields)` is a gateway whose account sends to that port and waits for nothing between."""
    made: list[Gateway] = []

    async def make(port: int, **fields: Any) -> Gateway:
        gateway = await Gateway.open(Settings.load(tmp_path, hostname="gateway.test", smtp={"listeners": []}))
        made.append(gateway)
        account = {"name": "relay", "host": "127.0.0.1", "port": port, "security": "none"}
        at_once = {"connect_retry": "100ms", "reconnect_interval": "100ms"}
        await gateway.accounts.add(account | at_once | fields)
        await gateway.applications.add({"name": "erp", "senders": "*"})
        await gateway.start()
        return gateway

    yield make
    for gateway in made:
        await gateway.stop()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "greeting: no reply within 0.1 s"),
        ({"security": "tls"}, "tls: no connection to 127.0.0.1 within 0.1 s"),
    ],
)
async def test_a_socket_that_accepts_and_says_nothing(
    delivering: Delivering, fields: dict[str, str], reason: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gateway = await delivering(silent.getsockname()[1], **(IMPATIENT | fields))
        accepted = await gateway.submit(hello(gateway))
        while reason not in (await gateway.answers.why(accepted.id))[0].reason:
            pass
        # It comes again after connect retry.
        silent.setblocking(False)
        for _ in range(2):
            connection, _ = await asyncio.get_running_loop().sock_accept(silent)
            connection.close()
        view = await gateway.store.message(accepted.id)
        assert view is not None and [(row.state.value, row.tries) for row in view.deliveries] == [("queued", 0)]


async def test_a_relay_that_falls_silent_in_the_envelope_is_asked_again_on_another_connection(
    delivering: Delivering,
) -> None:
    smarthost = Smarthost(Behaviour(silent_at="MAIL"))
    await smarthost.start()
    gateway = await delivering(smarthost.port, **IMPATIENT)
    accepted = await gateway.submit(hello(gateway))
    while "no reply within 0.1 s" not in (await gateway.answers.why(accepted.id))[0].reason:
        pass
    assert smarthost.taken == []
    smarthost.behaviour.silent_at = ""
    await gateway.accounts.edit("relay", PATIENT)
    assert await gateway.wait_drained()
    assert len(smarthost.taken) == 1
    await smarthost.stop()


async def test_an_idle_connection_is_ended_by_itself(delivering: Delivering) -> None:
    smarthost = Smarthost(Behaviour())
    await smarthost.start()
    gateway = await delivering(smarthost.port, idle_timeout=SOON)
    await gateway.submit(hello(gateway))
    while "QUIT" not in smarthost.commands:
        await asyncio.sleep(0)
    assert len(smarthost.taken) == 1
    await smarthost.stop()
