"""A running gateway to be attacked: raw clients, the gateway's memory, and what it says of its queue.

Nothing here waits for time to pass: what is waited for is a reply, a line at a relay, or an answer of the control
socket, each with a deadline after which the test fails.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from tests.conftest import Served, end_serving, start_serving
from tests.e2e.scripted_relay import Background, ScriptedRelay

T = TypeVar("T")

#: How long anything may take before the test fails, in seconds.
PATIENCE = 60.0

#: How far the gateway's resident memory may rise above what it was before an attack.
MOST_GROWTH_BYTES = 12 * 1024 * 1024

#: For malloc(3) of the gateway: what was freed is given back at once, so that resident memory is what is held.
FAITHFUL_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}

SENDER = "app@source.example"
EVIL, VICTIM = "evil@smuggled.example", "victim@smuggled.example"


class Client:
    """A connection to a listener, in octets. `source` is the address it comes from; one that is `far` has buffers and
    segments as small as over a network, where loopback would take megabytes before anybody has to wait."""

    def __init__(self, port: int, *, source: str = "127.0.0.1", greeting: bytes = b"220 ", far: bool = False) -> None:
        self.socket = socket.socket()
        if far:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        self.socket.settimeout(PATIENCE)
        self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", port))
        self._read = b""
        if greeting:
            assert self.reply().startswith(greeting)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave without a word."""
        self.socket.close()

    def send(self, octets: bytes) -> None:
        """Write all of it; for more than fits into the buffers of a socket there is `pour`."""
        self.socket.sendall(octets)

    def reply(self) -> bytes:
        """The next whole reply; b"" once the gateway has closed."""
        while (end := re.search(rb"(?m)^[0-9]{3} .*\n", self._read)) is None:
            if not (piece := self._receive()):
                return b""
            self._read += piece
        reply, self._read = self._read[: end.end()], self._read[end.end() :]
        return reply

    def ask(self, line: bytes) -> bytes:
        """The reply to one command."""
        self.send(line + b"\r\n")
        return self.reply()

    def begin(self, recipient: str = "to@relay.example", sender: str = SENDER) -> None:
        """EHLO and an envelope, up to the 354."""
        self.send(b"EHLO client.example\r\n" + envelope(recipient, sender) + b"DATA\r\n")
        codes = [self.reply()[:3] for _ in range(4)]
        assert codes == [b"250", b"250", b"250", b"354"]

    def to_the_end(self) -> bytes:
        """Everything until the gateway closes."""
        pieces = [self._read]
        self._read = b""
        while piece := self._receive():
            pieces.append(piece)
        return b"".join(pieces)

    def pour(self, octets: bytes, ends: Callable[[bytes], bool] | None = None) -> bytes:
        """Send everything and read meanwhile; what was said until `ends` (given its tail) says that it is all, or until
        the gateway closed. A gateway that closes in the middle need not have read the rest."""
        said, left = bytearray(self._read), memoryview(octets)
        self._read = b""
        while left or ends is None or not ends(bytes(said[-200:])):
            readable, writable, _ = select.select([self.socket], [self.socket] if left else [], [], PATIENCE)
            assert readable or writable, "the gateway neither reads nor writes"
            if readable:
                if not (piece := self._receive()):
                    break
                said += piece
            if writable:
                try:
                    left = left[self.socket.send(left[: 1 << 16]) :]
                except ConnectionError:
                    left = memoryview(b"")
                    ends = None
        return bytes(said)

    def start_tls(self, context: ssl.SSLContext) -> None:
        """The handshake, for `localhost`; `pour` and `push` are for connections in clear."""
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def push(self, octets: bytes) -> int:
        """Send what fits into the buffers now; how many octets that were."""
        self.socket.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < len(octets):
                sent += self.socket.send(octets[sent : sent + (1 << 16)])
        self.socket.settimeout(PATIENCE)
        return sent

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(1 << 20)
        except ConnectionError:
            return b""


def envelope(recipient: str, sender: str = SENDER) -> bytes:
    """MAIL and RCPT."""
    return f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\n".encode()


#: A transaction that nobody asked for.
SMUGGLED = envelope(VICTIM, EVIL) + b"DATA\r\nSubject: smuggled\r\n\r\nevil\r\n.\r\n"


def is_bare(octets: bytes) -> bool:
    """Whether there is a CR without LF, or an LF without CR."""
    rest = octets.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest


def ends_in_a_reply(said: bytes) -> bool:
    """For `Client.pour`, where one reply is to come."""
    return said.endswith(b"\r\n")


def codes(said: bytes) -> list[int]:
    """The codes of the replies in `said`."""
    return [int(code) for code in re.findall(rb"(?m)^([0-9]{3})(?: |\r)", said)]


class Api:
    """The routes of `/v1` on a gateway's control socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, method: str, route: str, body: Any = None, raw: bytes | None = None, **query: Any) -> Any:
        """What the route answers, read from JSON; anything but 2xx fails the test."""
        connection = http.client.HTTPConnection("postroom", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE)
        connection.sock.connect(str(self._path))
        headers = {"content-type": "message/rfc822" if raw is not None else "application/json"}
        content = raw if raw is not None else json.dumps(body).encode() if body is not None else None
        with contextlib.closing(connection):
            connection.request(method, f"/v1/{route}?{urlencode(query, doseq=True)}", content, headers)
            answer = connection.getresponse()
            text = answer.read()
        assert 200 <= answer.status < 300, f"{method} {route}: {answer.status} {text!r}"
        return json.loads(text) if text else None

    def wait_for(self, route: str, right: Callable[[Any], bool], **query: Any) -> Any:
        """What the route answers, once it is right."""
        deadline = time.monotonic() + PATIENCE
        while not right(answer := self.ask("GET", route, **query)):
            assert time.monotonic() < deadline, answer
        return answer

    def message(self, message_id: str, *states: str) -> Any:
        """A message, once its deliveries are all in one of `states`."""
        return self.wait_for(
            f"messages/{message_id}", lambda found: all(one["state"] in states for one in found["deliveries"])
        )

    def deliveries(self, **query: Any) -> list[dict[str, Any]]:
        """The newest thousand."""
        found: list[dict[str, Any]] = self.ask("GET", "deliveries", limit=1000, **query)["deliveries"]
        return found


@dataclass
class Target:
    """A gateway with a healthy relay for what comes in by SMTP; `ports` are those of its listeners in order."""

    served: Served
    api: Api
    background: Background
    healthy: ScriptedRelay
    ports: list[int]
    _names: Iterator[int] = field(default_factory=itertools.count)

    def name(self) -> str:
        """A local-part that no other message has."""
        return f"n{next(self._names)}"

    def serves_others(self, port: int = 0) -> None:
        """A new client is greeted, its message is accepted, and arrives once, whole and unchanged."""
        recipient, body = f"{self.name()}@good.example", b"A line.\r\n..\r\n" * 500
        with Client(port or self.served.port) as client:
            client.begin(recipient)
            client.send(b"Subject: good\r\n\r\n" + body.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            self.arrives(client.reply())
            assert client.ask(b"QUIT").startswith(b"221 ")
        (taken,) = self.healthy.taken_for(recipient)
        assert taken.content.endswith(b"\r\n\r\n" + body)

    def arrives(self, reply: bytes) -> None:
        """The message with this reply was accepted and is delivered."""
        self.api.message(queued_as(reply), "delivered")

    @contextlib.contextmanager
    def unharmed(self, most: int = MOST_GROWTH_BYTES) -> Iterator[None]:
        """After what is done here others are served as before, and memory stayed flat."""
        seen = len(self.served.output)
        with flat_memory(self.served.process.pid, most):
            yield
            self.serves_others()
        assert self.served.process.poll() is None
        assert [line for line in self.served.output[seen:] if "Traceback" in line] == []

    def knows_nothing_of_it(self) -> None:
        """What was smuggled, injected or refused is neither queued nor sent."""
        self.api.ask("POST", "drain")
        assert self.api.deliveries(recipient=VICTIM) == []
        assert self.api.deliveries(sender=EVIL) == []
        assert self.healthy.taken_for(VICTIM) == []
        assert [line for line in self.healthy.commands if EVIL in line or VICTIM in line] == []

    def add_account(self, name: str, port: int, **fields: Any) -> None:
        """An account at a relay on loopback that every application may use."""
        grant = {"application": "local", "senders": ["*"]}
        account = {"name": name, "host": "127.0.0.1", "port": port, "security": "none", "grant": grant}
        self.api.ask("POST", "accounts", account | fields)


def queued_as(reply: bytes) -> str:
    """The message's id, of the reply to its content."""
    assert reply.startswith(b"250 2.0.0 Ok: queued as "), reply
    return reply.split()[-1].decode()


@contextlib.contextmanager
def standing(folder: Path, listeners: Sequence[dict[str, Any]] = ({},), **settings: str) -> Iterator[Target]:
    """A gateway, warm: it has taken and delivered messages of every size before it is attacked."""
    background = Background()
    healthy = ScriptedRelay(background)
    wanted = json.dumps([{"address": "127.0.0.1", "port": 0} | one for one in listeners])
    served = start_serving(folder / "data", wanted, **FAITHFUL_MEMORY, **settings)
    try:
        ready = next(line for line in served.output if "ready" in line)
        ports = [int(port) for port in re.findall(r"127\.0\.0\.1:([0-9]+)", ready)]
        target = Target(served, Api(folder / "data" / "control.sock"), background, healthy, ports)
        target.add_account("healthy", healthy.port)
        _warm(target)
        yield target
    finally:
        end_serving(served)
        healthy.stop()
        background.close()


def _warm(target: Target) -> None:
    # The database keeps up to 32 MiB of its pages in memory: full before anything is measured.
    for size in (1, 100, 100_000, *[5_000_000] * 8):
        recipient = f"{target.name()}@warm.example"
        with Client(target.served.port) as client:
            client.begin(recipient)
            body = b"0123456789\r\n" * (size // 12)
            target.arrives(client.pour(b"Subject: warm\r\n\r\n" + body + b".\r\n", ends_in_a_reply))
    with contextlib.ExitStack() as clients:
        several = [clients.enter_context(Client(target.served.port)) for _ in range(20)]
        assert all(client.ask(b"EHLO warm.example").startswith(b"250-") for client in several)
    target.api.deliveries()
    target.healthy.taken.clear()


def _memory(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"(?m)^{name}:\s+([0-9]+) kB$", status)
    assert found is not None
    return int(found[1]) * 1024


@contextlib.contextmanager
def flat_memory(pid: int, most: int = MOST_GROWTH_BYTES) -> Iterator[None]:
    """The process's resident memory never rises by `most` here: its peak, where the kernel lets us start that anew."""
    before = _memory(pid, "VmRSS")
    peak = "VmHWM"
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): the peak begins again at what is resident now
    except OSError:
        peak = "VmRSS"
    yield
    growth = _memory(pid, peak) - before
    assert growth < most, f"{peak} rose by {growth / 1024 / 1024:.1f} MiB from {before / 1024 / 1024:.1f} MiB"
