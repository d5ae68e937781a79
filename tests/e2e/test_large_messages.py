"""50 MiB through a running gateway: no door and no delivery holds it in memory, and it arrives as it was sent."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import Served

Serve = Callable[..., Served]

MIB = 1024 * 1024
BLOCKS = 50
#: By how much the gateway may grow; what is kept in memory for each connection and for the store is a part of that.
MOST_GROWTH = 12 * MIB

HEAD = (
    b"From: app@shop.example\r\nTo: ann@example.net\r\nSubject: large\r\nDate: Fri, 20 Nov 2026 08:00:00 +0000\r\n"
    b"Message-ID: <large@shop.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=part\r\n\r\n"
)
PART = b"--part\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
LINES = b"".join(
    b"%05d: the quick brown fox, \xc3\xa0 la carte, jumps over \t the lazy dog\r\n" % n for n in range(8000)
)
BLOCK = PART + LINES + b".\r\n..dots\r\n" + b" \r\n" + b"x" * (MIB - len(PART) - len(LINES) - 14 - 2) + b"\r\n"
END = b"--part--\r\n"


def body() -> Iterator[bytes]:
    """The body, piece by piece."""
    for _ in range(BLOCKS):
        yield BLOCK
    yield END


def body_sha256() -> str:
    """What the sink shall find."""
    digest = hashlib.sha256()
    for piece in body():
        digest.update(piece)
    return digest.hexdigest()


def peak(served: Served) -> int:
    """The most memory that the gateway has had since `measured` began, in octets."""
    return _status(served, "VmHWM")


def _status(served: Served, name: str) -> int:
    text = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(text.partition(f"{name}:")[2].split()[0]) * 1024


@contextmanager
def measured(served: Served, what: str) -> Iterator[None]:
    """Fails if the gateway grows by more than it may meanwhile."""
    try:
        Path(f"/proc/{served.process.pid}/clear_refs").write_text("5")  # the peak begins anew (proc(5))
    except OSError as error:
        pytest.skip(f"the peak of memory can't be measured here: {error}")
    before = _status(served, "VmRSS")
    yield
    growth = peak(served) - before
    print(f"{what}: {before / MIB:.1f} MiB and {growth / MIB:.1f} MiB more")
    assert growth < MOST_GROWTH, f"{what} took {growth / MIB:.1f} MiB of memory"


class Client:
    """A client that makes its message while it sends it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._replies = self._socket.makefile("rb")
        self._expect(b"220")
        self.command(b"EHLO client.example")

    def command(self, line: bytes, code: bytes = b"250") -> None:
        """A command and its reply."""
        self._socket.sendall(line + b"\r\n")
        self._expect(code)

    def _expect(self, code: bytes) -> None:
        while (line := self._replies.readline())[3:4] == b"-":
            pass
        assert line.startswith(code), line

    def send(self, recipient: bytes, pieces: Iterator[bytes]) -> None:
        """With DATA; each piece ends with a line end."""
        self._envelope(recipient)
        self.command(b"DATA", b"354")
        for piece in pieces:
            self._socket.sendall((b"\n" + piece).replace(b"\n.", b"\n..")[1:])
        self.command(b".")

    def send_in_chunks(self, recipient: bytes, pieces: Iterator[bytes]) -> None:
        """With BDAT (RFC 3030)."""
        self._envelope(recipient)
        for piece in pieces:
            self._socket.sendall(b"BDAT %d\r\n" % len(piece) + piece)
            self._expect(b"250")
        self.command(b"BDAT 0 LAST")

    def _envelope(self, recipient: bytes) -> None:
        self.command(b"MAIL FROM:<app@shop.example> BODY=8BITMIME")
        self.command(b"RCPT TO:<" + recipient + b">")

    def close(self) -> None:
        """Without a word."""
        self._replies.close()
        self._socket.close()


@dataclass
class Sink:
    """A relay that keeps of each message its size and the SHA-256 of its body."""

    received: list[tuple[int, str]] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 sink.example\r\n")
            for line in lines:
                verb = line[:4].upper()
                if verb == b"EHLO":
                    connection.sendall(b"250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
                elif verb == b"DATA":
                    connection.sendall(b"354 go on\r\n")
                    self._content(iter(lines.readline, b".\r\n"))
                    connection.sendall(b"250 2.0.0 taken\r\n")
                elif verb == b"QUIT":
                    connection.sendall(b"221 bye\r\n")
                    return
                else:
                    connection.sendall(b"250 ok\r\n")

    def _content(self, lines: Iterator[bytes]) -> None:
        while next(lines) != b"\r\n":
            pass
        digest = hashlib.sha256()
        size = 0
        for line in lines:
            assert line, "the content breaks off"
            text = line[1:] if line.startswith(b".") else line
            digest.update(text)
            size += len(text)
        with self.news:
            self.received.append((size, digest.hexdigest()))
            self.news.notify_all()

    def wait_for(self, messages: int) -> None:
        """Until it has received so many."""
        with self.news:
            assert self.news.wait_for(lambda: len(self.received) >= messages, 60)

    def close(self) -> None:
        """Take no more."""
        self._listening.close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A relay in the test's own process."""
    relay = Sink()
    yield relay
    relay.close()


SETTINGS = {"POSTROOM_SMTP__MAX_SIZE_BYTES": "64MiB"}
SMALL = 20


def warmed(served: Served) -> Client:
    """A client that has sent small messages: what any message needs is in memory."""
    client = Client(served.port)
    for _ in range(SMALL):
        client.send(b"small@example.net", iter([b"From: app@shop.example\r\nSubject: small\r\n\r\ntext\r\n"]))
    return client


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings, with those that say where the database is."""
    if request.param == "sqlite":
        return SETTINGS
    return SETTINGS | {"POSTROOM_DATABASE": request.getfixturevalue("cluster").new_database()}


@pytest.mark.parametrize("way", ["DATA", "BDAT", "postroom send"])
def test_no_door_holds_a_large_message(serve: Serve, tmp_path: Path, way: str, where: dict[str, str]) -> None:
    served = serve(POSTROOM_SENDING_ENABLED="false", **where)
    served.run("accounts", "add", "relay", "--host", "127.0.0.1", "--for", "local", "--allow-sender", "*")
    file = tmp_path / "large.eml"
    if way == "postroom send":
        with file.open("wb") as out:
            out.write(HEAD)
            out.writelines(body())
        served.run(
            "send", "--from", "app@shop.example", "--to", "small@example.net", "--subject", "small", "--text", ""
        )
    with closing(warmed(served)) as client, measured(served, way):
        if way == "DATA":
            client.send(b"ann@example.net", iter([HEAD, *body()]))
        elif way == "BDAT":
            client.send_in_chunks(b"ann@example.net", iter([HEAD, *body()]))
        else:
            served.run("send", "--raw", str(file))
    rows = json.loads(served.run("queue", "list", "--json").stdout)["deliveries"]
    assert {row["recipient"]: row["size_bytes"] // MIB for row in rows} == {
        "ann@example.net": 50,
        "small@example.net": 0,
    }


def test_the_delivery_does_not_hold_a_large_message_and_it_arrives_as_it_was_sent(
    serve: Serve, sink: Sink, where: dict[str, str]
) -> None:
    served = serve(POSTROOM_SENDING_ENABLED="false", **where)
    relay = ["--host", "127.0.0.1", "--port", str(sink.port), "--security", "none"]
    served.run("accounts", "add", "relay", *relay, "--for", "local", "--allow-sender", "*")
    with closing(Client(served.port)) as client:
        client.send(b"ann@example.net", iter([HEAD, *body()]))
    (row,) = json.loads(served.run("queue", "list", "--json").stdout)["deliveries"]
    served.run("queue", "hold", row["message_id"])
    assert served.stop() == 0

    served = serve(data=served.data, port=served.port, **where)
    with closing(warmed(served)):
        sink.wait_for(SMALL)
    with measured(served, "delivery"):
        served.run("queue", "release", row["message_id"])
        sink.wait_for(SMALL + 1)
    assert sink.received[-1] == (BLOCKS * len(BLOCK) + len(END), body_sha256())
