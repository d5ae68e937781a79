"""Envelope ahead (decision 0003) against Postfix and Exim: what becomes of the envelope behind a message in trouble.

Messages wait until the account is switched on, with one connection. The envelope of the second goes in one flight with
the content of the first, a third follows, and the second is in trouble. A proxy records the flights; an aiosmtpd beyond
the relay shows what the relay took, how often, and under which reverse-path.
"""

from __future__ import annotations

import asyncio
import json
import re
import smtplib
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from bench.gateways import Postfix
from bench.traffic import free_port, wait_until
from tests.conftest import Served
from tests.interop.conftest import AioRelay, Arrivals, Certificates, ClosingController, add_relay, wait_for_rows
from tests.interop.exim import Exim
from tests.interop.postfix import running_postfix
from tests.interop.recording_proxy import RecordingProxy

FINAL = ("delivered", "bounced", "expired", "cancelled", "captured")
NO_LIMIT = 1_000_000
GOOD = "good@sink.example"


# The relays -------------------------------------------------------------------------------------------------------


class Relay(Protocol):
    """A running relay that refuses as exim.conf says."""

    port: int

    def waiting(self) -> int:
        """Messages that it still keeps."""


class Policy(socketserver.ThreadingTCPServer):
    """What Postfix asks before each reply to MAIL, RCPT and the end of data (Postfix's SMTPD_POLICY_README).

    As in exim.conf: no `late` behind a message that was taken on its connection, and no more than `limit` messages.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _PolicyHandler)
        self.forget(NO_LIMIT)

    def forget(self, limit: int) -> None:
        """No connection has been; a connection may have `limit` messages."""
        self.limit = limit
        self._mails: dict[str, int] = {}
        self._taken: set[str] = set()

    def action(self, asked: dict[str, str]) -> str:
        """The answer."""
        connection, state = asked["client_port"], asked["protocol_state"]
        if state == "END-OF-MESSAGE":
            self._taken.add(connection)
            return "DUNNO"
        if state == "MAIL":
            self._mails[connection] = self._mails.get(connection, 0) + 1
            if self._mails[connection] > self.limit:
                return "421 4.7.0 too many messages in this connection"
        address = asked["sender" if state == "MAIL" else "recipient"]
        if address.startswith("late@") and connection in self._taken:
            return "421 4.3.2 no more on this connection"
        return "DUNNO"


class _PolicyHandler(socketserver.StreamRequestHandler):
    """One of Postfix's processes, which asks again and again: lines of name=value, ended by an empty one."""

    def handle(self) -> None:
        """Answer while it asks."""
        assert isinstance(self.server, Policy)
        asked: dict[str, str] = {}
        for line in self.rfile:
            name, equals, value = line.decode().rstrip("\n").partition("=")
            if equals:
                asked[name] = value
                continue
            self.wfile.write(f"action={self.server.action(asked)}\n\n".encode())
            asked = {}


@contextmanager
def running_policy() -> Iterator[Policy]:
    """It answers inside."""
    with Policy() as policy:
        thread = threading.Thread(target=policy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield policy
        policy.shutdown()
        thread.join()


@contextmanager
def running_sink() -> Iterator[AioRelay]:
    """An aiosmtpd that takes everything."""
    arrivals = Arrivals()
    controller = ClosingController(arrivals, hostname="127.0.0.1", port=free_port(), decode_data=False)
    controller.start()
    try:
        yield AioRelay(controller.port, arrivals)
    finally:
        asyncio.run_coroutine_threadsafe(controller.end_connections(), controller.loop).result(30)
        controller.stop(no_assert=True)


@dataclass(frozen=True)
class LastingPostfix:
    """One for all tests of this module: it takes seconds to start and to stop."""

    relay: Postfix
    policy: Policy
    sink: AioRelay


@pytest.fixture(scope="module")
def lasting_postfix(certificates: Certificates) -> Iterator[LastingPostfix]:
    """It runs until the module's last test."""
    with running_sink() as sink, running_policy() as policy, refusing_postfix(certificates, sink, policy) as relay:
        yield LastingPostfix(relay, policy, sink)


def refusing_postfix(
    certificates: Certificates, sink: AioRelay, policy: Policy, hard_error_limit: int = 100
) -> AbstractContextManager[Postfix]:
    """It relays to `sink` inside."""
    names = {"policy_port": str(policy.server_address[1]), "hard_error_limit": str(hard_error_limit)}
    return running_postfix(certificates, sink.port, "postfix_refusing.cf", **names)


StartRelay = Callable[..., tuple[Relay, Arrivals]]


@pytest.fixture(params=["postfix", "exim"])
def start_relay(request: pytest.FixtureRequest) -> StartRelay:
    """`start_relay(limit=N)`: a relay, and what arrives beyond it; it closes a connection at the MAIL after N ones."""

    def postfix(limit: int = NO_LIMIT) -> tuple[Relay, Arrivals]:
        lasting: LastingPostfix = request.getfixturevalue("lasting_postfix")
        lasting.policy.forget(limit)
        lasting.sink.arrivals.take()
        return lasting.relay, lasting.sink.arrivals

    def exim(limit: int = NO_LIMIT) -> tuple[Relay, Arrivals]:
        sink: AioRelay = request.getfixturevalue("aiosmtpd_relay")()
        start: Callable[..., Exim] = request.getfixturevalue("exim_relay")
        return start(sink.port, f"smtp_accept_max_per_connection = {limit}"), sink.arrivals

    return {"postfix": postfix, "exim": exim}[request.param]


# The passage ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """What is submitted."""

    sender: str
    recipients: tuple[str, ...] = (GOOD,)
    subject: str = "wanted"


ZERO, TWO = Message("zero@source.example"), Message("two@source.example")


@dataclass
class Passage:
    """A gateway whose account is off, a relay behind a proxy, and what was seen."""

    served: Served
    proxy: RecordingProxy
    relay: Relay
    arrivals: Arrivals
    rows: list[dict[str, Any]] = field(default_factory=list)

    def send(self, *messages: Message) -> None:
        """All wait, then go: three are under way before the first may write its content. At the end, all have ended
        in the gateway, and the relay has handed on all that it took."""
        with smtplib.SMTP("127.0.0.1", self.served.port, timeout=60) as client:
            for message in messages:
                text = f"From: <{message.sender}>\r\nSubject: {message.subject}\r\n\r\nText.\r\n.\r\n"
                assert client.sendmail(message.sender, message.recipients, text) == {}
        self.served.run("accounts", "edit", "relay", "--enabled")
        three = {message.sender for message in messages[:3]}
        wait_for_rows(
            self.served, lambda rows: three == {row["reverse_path"] for row in rows if row["state"] == "sending"}
        )
        self.proxy.let_content_go()
        self.rows = wait_for_rows(self.served, all_ended)
        wait_until(lambda: self.relay.waiting() == 0, 60, "the relay has handed on what it took")

    @property
    def states(self) -> dict[str, str]:
        """By the local-parts of reverse-path and recipient."""
        return {f"{local(row['reverse_path'])} {local(row['recipient'])}": row["state"] for row in self.rows}

    def refusal(self, message: Message) -> str:
        """The state of its first recipient, and what the relay said about it."""
        of = (message.sender, message.recipients[0])
        (row,) = [row for row in self.rows if (row["reverse_path"], row["recipient"]) == of]
        return f"{row['state']}: {row['reply']}"

    def attempts(self, message: Message) -> int:
        """How many attempts its history shows."""
        (number,) = {row["message_id"] for row in self.rows if row["reverse_path"] == message.sender}
        return len(json.loads(self.served.run("queue", "show", number, "--json").stdout)["attempts"])

    @property
    def arrived(self) -> list[tuple[str, list[str]]]:
        """Beyond the relay: reverse-path and recipients of each message, sorted, by their local-parts."""
        envelopes = self.arrivals.envelopes
        return sorted((local(str(one.mail_from)), [local(str(to)) for to in one.rcpt_tos]) for one in envelopes)

    def goes_ahead(self, message: Message) -> bool:
        """Whether its envelope went in one flight with the end of the content before it."""
        together = b"\r\n.\r\nMAIL FROM:<" + message.sender.encode() + b">"
        return any(together in flight for connection in self.proxy.connections for flight in connection.flights)

    def connections_of(self, message: Message) -> list[int]:
        """On which connections its MAIL was written, as often as it was."""
        mail = b"MAIL FROM:<" + message.sender.encode() + b">"
        return [n for n, one in enumerate(self.proxy.connections) for _ in range(one.commands.count(mail))]


def local(address: str) -> str:
    """The local-part."""
    return address.partition("@")[0]


def all_ended(rows: list[dict[str, Any]]) -> bool:
    """None waits, but who was told to come again later."""
    return all(
        row["state"] in FINAL or (row["state"] == "deferred" and local(row["recipient"]) == "greylisted")
        for row in rows
    )


@pytest.fixture
def make_passage(serve: Callable[..., Served]) -> Iterator[Callable[[Relay, Arrivals], Passage]]:
    """`make_passage(relay, arrivals)`."""
    proxies: list[RecordingProxy] = []

    def make(relay: Relay, arrivals: Arrivals) -> Passage:
        proxy = RecordingProxy(relay.port)
        proxies.append(proxy)
        proxy.start()
        served = serve(POSTROOM_ACCOUNT_SLEEP="1s", POSTROOM_NOTIFICATIONS__TO="none")
        add_relay(served, proxy.port, "--max-connections", "1", "--reconnect-interval", "10ms", "--no-enabled")
        return Passage(served, proxy, relay, arrivals)

    yield make
    for proxy in proxies:
        proxy.stop()


@pytest.fixture
def passage(start_relay: StartRelay, make_passage: Callable[[Relay, Arrivals], Passage]) -> Passage:
    """Through a relay without a limit."""
    return make_passage(*start_relay())


# What becomes of it -----------------------------------------------------------------------------------------------


def test_behind_a_message_whose_only_recipient_is_refused(passage: Passage) -> None:
    """Catches: no RSET behind it, whereupon the relay refuses the next MAIL as nested or takes the next message under
    this one's reverse-path; a reply counted for the wrong message."""
    one = Message("one@source.example", ("unknown@sink.example",))
    passage.send(ZERO, one, TWO)
    assert passage.arrived == [("two", ["good"]), ("zero", ["good"])]
    assert passage.states == {"zero good": "delivered", "one unknown": "bounced", "two good": "delivered"}
    assert "no such recipient" in passage.refusal(one)
    assert passage.goes_ahead(one)
    assert [passage.connections_of(message) for message in (ZERO, one, TWO)] == [[0], [0], [0]]


def test_behind_a_message_whose_sender_is_refused(passage: Passage) -> None:
    """Catches: the 503s to RCPT and DATA behind a refused MAIL told as the reason, or taken for replies to the next
    message, which then has the next but one's."""
    one = Message("unwanted@source.example")
    passage.send(ZERO, one, TWO)
    assert passage.arrived == [("two", ["good"]), ("zero", ["good"])]
    assert passage.states == {"zero good": "delivered", "unwanted good": "bounced", "two good": "delivered"}
    assert "not owned by user" in passage.refusal(one)
    assert passage.goes_ahead(one)
    assert [passage.connections_of(message) for message in (ZERO, one, TWO)] == [[0], [0], [0]]


def test_behind_a_message_whose_content_is_refused(passage: Passage) -> None:
    """Catches: an RSET in front of the next content, which would undo the envelope that is ahead; that envelope
    written once more; the refusal counted for the next message, or its 250 for this one."""
    one = Message("one@source.example", subject="unwanted")
    passage.send(ZERO, one, TWO)
    assert passage.arrived == [("two", ["good"]), ("zero", ["good"])]
    assert passage.states == {"zero good": "delivered", "one good": "bounced", "two good": "delivered"}
    assert "this content is unwanted" in passage.refusal(one)
    assert passage.goes_ahead(one) and passage.goes_ahead(TWO)
    assert [passage.connections_of(message) for message in (ZERO, one, TWO)] == [[0], [0], [0]]


def test_behind_a_message_that_some_recipients_are_refused_of(passage: Passage) -> None:
    """Catches: one recipient's reply counted for another; a content held back though one recipient was accepted."""
    one = Message("one@source.example", ("unknown@sink.example", GOOD, "greylisted@sink.example"))
    passage.send(ZERO, one, TWO)
    assert passage.arrived == [("one", ["good"]), ("two", ["good"]), ("zero", ["good"])]
    assert passage.states == {
        "zero good": "delivered",
        "one unknown": "bounced",
        "one good": "delivered",
        "one greylisted": "deferred",
        "two good": "delivered",
    }
    assert "no such recipient" in passage.refusal(one)
    assert passage.goes_ahead(one) and passage.goes_ahead(TWO)
    assert [passage.connections_of(message) for message in (ZERO, one, TWO)] == [[0], [0], [0]]


#: The message that is ahead of the content before it.
LATE = {
    "at MAIL": Message("late@source.example"),
    "at RCPT": Message("one@source.example", ("late@sink.example",)),
}


@pytest.mark.parametrize("where", LATE)
def test_421_to_the_envelope_ahead(passage: Passage, where: str) -> None:
    """Catches: the connection used on (Exim does not close it); what was ahead lost, bounced, or sent again though it
    was taken; the content that was taken in front of it sent again."""
    one = LATE[where]
    passage.send(ZERO, one, TWO)
    assert passage.arrived == sorted((local(m.sender), [local(m.recipients[0])]) for m in (ZERO, one, TWO))
    assert set(passage.states.values()) == {"delivered"}
    assert passage.goes_ahead(one)
    assert re.search(rb"\r\n421 4.3.2 .*no more on this connection\r\n", passage.proxy.connections[0].replies)
    assert passage.connections_of(ZERO) == [0]
    assert passage.connections_of(one)[0] == 0 < passage.connections_of(one)[-1]
    assert 0 not in passage.connections_of(TWO)
    assert {row["tries"] for row in passage.rows} == {1}
    assert not any(row["may_be_sent_twice"] for row in passage.rows)
    never_begun = passage.attempts(one) == 1
    assert never_begun == (where == "at MAIL")


def test_a_connection_that_takes_two_messages(
    start_relay: StartRelay, make_passage: Callable[[Relay, Arrivals], Passage]
) -> None:
    """Catches: the message whose envelope was ahead lost, sent twice, or blamed, each time anew."""
    passage = make_passage(*start_relay(limit=2))
    messages = [Message(f"{name}@source.example") for name in ("m1", "m2", "m3", "m4", "m5", "m6", "m7")]
    passage.send(*messages)
    assert passage.arrived == [(local(message.sender), ["good"]) for message in messages]
    assert {row["state"] for row in passage.rows} == {"delivered"}
    assert {row["tries"] for row in passage.rows} == {1}
    assert not any(row["may_be_sent_twice"] for row in passage.rows)
    assert passage.goes_ahead(messages[1]) and passage.goes_ahead(messages[2])
    assert passage.connections_of(messages[2])[0] == 0
    assert passage.attempts(messages[2]) == 1
    assert len(passage.proxy.connections) == 4
    said = [b"421" in connection.replies and b"too many messages" in connection.replies
            for connection in passage.proxy.connections]  # fmt: skip
    assert said == [True, True, True, False]


def test_postfix_that_closes_after_one_error(
    aiosmtpd_relay: Callable[..., AioRelay],
    certificates: Certificates,
    make_passage: Callable[[Relay, Arrivals], Passage],
) -> None:
    """The refused recipient is Postfix's reason to leave (smtpd_hard_error_limit), before it answers DATA.

    Catches: the refusal forgotten with the connection; the next message lost, or blamed for it.
    """
    sink, one = aiosmtpd_relay(), Message("one@source.example", ("unknown@sink.example",))
    with running_policy() as policy, refusing_postfix(certificates, sink, policy, hard_error_limit=1) as relay:
        passage = make_passage(relay, sink.arrivals)
        passage.send(ZERO, one, TWO)
    assert passage.arrived == [("two", ["good"]), ("zero", ["good"])]
    assert passage.states == {"zero good": "delivered", "one unknown": "bounced", "two good": "delivered"}
    assert "no such recipient" in passage.refusal(one)
    assert b"too many errors" in passage.proxy.connections[0].replies
    assert [passage.connections_of(message) for message in (ZERO, one, TWO)] == [[0], [0], [1]]


def test_exim_counts_the_rsets_behind_refused_messages(
    exim_relay: Callable[..., Exim],
    aiosmtpd_relay: Callable[..., AioRelay],
    make_passage: Callable[[Relay, Arrivals], Passage],
) -> None:
    """Exim ends a connection at the eleventh command in a row that brings no mail (smtp_accept_max_nonmail).

    Catches: a refusal of RSET that is taken for one of a message; a good message lost behind many bad ones.
    """
    sink = aiosmtpd_relay()
    passage = make_passage(exim_relay(sink.port), sink.arrivals)
    refused = [Message(f"m{n}@source.example", ("unknown@sink.example",)) for n in range(25)]
    passage.send(ZERO, *refused, TWO)
    assert passage.arrived == [("two", ["good"]), ("zero", ["good"])]
    ends = {f"m{n} unknown": "bounced" for n in range(25)}
    assert passage.states == ends | {"zero good": "delivered", "two good": "delivered"}
    assert {row["tries"] for row in passage.rows} == {1}
    assert b"554 Too many nonmail commands" in passage.proxy.connections[0].replies
    assert len(passage.proxy.connections) > 1
