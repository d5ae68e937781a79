"""What memory attacks cost a running gateway: the growth of its peak (VmHWM) over what it held before."""

from __future__ import annotations

import smtplib
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from .gateways import MeasuredGateway, Postroom, rest
from .process_tree import forget_peak, resident_and_peak_bytes
from .relay import running
from .slow_clients import Slow, half_a_command, trickled_content, worst_greeting_seconds
from .traffic import RECIPIENT, SENDER, Sink, Void, send, wait_until

MIB = 2**20

#: Growth in MiB that counts as flat; the content of a large message may cost no more than a few.
GOAL_MIB = 16.0
CONTENT_GOAL_MIB = 8.0

#: Delivered before the attack, so that what the gateway needs anyway is there.
WARM_UP = 500

#: A little more than SQLite's page cache.
CACHE_MIB = 34

SLOW_CLIENTS = 200

_SECONDS = 60
_PIECE = 64 * 1024

#: Where a relay stops by itself.
_ENDLESS_OCTETS = 256 * MIB

#: Runs the attack; says in a few words what came of it.
Run = Callable[[Postroom, Sink], str]


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack on a gateway of its own that runs with `settings` (environment variables).

    `cache_full`: a message as large as SQLite's page cache went through before, so that the cache (32 MiB, whatever
    comes) is no part of what a content costs.
    """

    what: str
    run: Run
    goal_mib: float = GOAL_MIB
    cache_full: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


class Wire:
    """A client that writes what it likes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), _SECONDS)
        self._lines = self._socket.makefile("rb")
        self.reply()
        self.ask(b"EHLO client.example\r\n")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lines.close()
        self._socket.close()

    def reply(self) -> str:
        """The last line of the next reply, without the number that a message got; "closed" where none comes."""
        try:
            while line := self._lines.readline():
                if line[3:4] != b"-":
                    return line.decode("utf-8", "replace").strip().partition(": queued as")[0]
        except ConnectionError:
            pass
        return "closed"

    def ask(self, line: bytes) -> str:
        """Write, and read the reply."""
        self.say(line)
        return self.reply()

    def say(self, data: bytes) -> None:
        """Write; a gateway that has closed the connection shows in the next reply."""
        try:
            self._socket.sendall(data)
        except ConnectionError:
            pass

    def pour(self, octets: int) -> None:
        """So many without a line end."""
        for _ in range(octets // _PIECE):
            self.say(b"x" * _PIECE)

    def begin_content(self) -> None:
        """Up to 354."""
        self.ask(f"MAIL FROM:<{SENDER}>\r\n".encode())
        self.ask(f"RCPT TO:<{RECIPIENT}>\r\n".encode())
        self.ask(b"DATA\r\n")


def _long_command(gateway: Postroom, sink: Sink) -> str:
    with Wire(gateway.port) as wire:
        wire.pour(8 * MIB)
        return wire.ask(b"\r\n")


def _long_line(before: bytes) -> Run:
    def run(gateway: Postroom, sink: Sink) -> str:
        with Wire(gateway.port) as wire:
            wire.begin_content()
            wire.say(before)
            wire.pour(8 * MIB)
            return wire.ask(b"\r\n.\r\n")

    return run


def _many_recipients(gateway: Postroom, sink: Sink) -> str:
    recipients = [f"RCPT TO:<user{n}@sink.example>\r\n".encode() for n in range(10_000)]
    taken = asked = 0
    with Wire(gateway.port) as wire:
        wire.ask(f"MAIL FROM:<{SENDER}>\r\n".encode())
        for first in range(0, len(recipients), 100):
            wire.say(b"".join(recipients[first : first + 100]))
            replies = [wire.reply() for _ in range(100)]
            asked += sum(1 for reply in replies if reply != "closed")
            taken += sum(1 for reply in replies if reply.startswith("250"))
            if "closed" in replies:
                return f"{taken} taken, closed after {asked}"
        wire.ask(b"DATA\r\n")
        reply = wire.ask(b"Subject: many\r\n\r\ntext\r\n.\r\n")
        return f"{taken} taken of {asked}; content: {reply}"


def _large_message(mib: int) -> Run:
    def run(gateway: Postroom, sink: Sink) -> str:
        before = sink.count()
        with Wire(gateway.port) as wire:
            wire.begin_content()
            wire.say(f"From: <{SENDER}>\r\nSubject: large\r\n\r\n".encode())
            piece = (b"x" * 76 + b"\r\n") * 840
            for _ in range(mib * MIB // len(piece)):
                wire.say(piece)
            reply = wire.ask(b".\r\n")
        if not reply.startswith("250"):
            return reply
        wait_until(lambda: sink.count() > before, _SECONDS, "the large message is delivered")
        return "taken and delivered"

    return run


def _slow(slow: Slow) -> Run:
    def run(gateway: Postroom, sink: Sink) -> str:
        seconds = worst_greeting_seconds(gateway.port, SLOW_CLIENTS, slow)
        return f"a new client is greeted within {seconds * 1000:.1f} ms"

    return run


class RudeRelay(threading.Thread):
    """Answers the first EHLO with `lines` again and again: `octets` of them, then `end`."""

    def __init__(self, lines: bytes, octets: int, end: bytes = b"") -> None:
        super().__init__(daemon=True)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(_SECONDS)
        self.port = int(self._listening.getsockname()[1])
        self.taken = 0
        self.seen = ""
        self._piece = lines * max(1, _PIECE // len(lines))
        self._octets = octets
        self._end = end

    def run(self) -> None:
        """One connection."""
        with self._listening:
            try:
                connection, _ = self._listening.accept()
                connection.settimeout(_SECONDS)
                with connection:
                    self._serve(connection)
            except TimeoutError:
                self.seen = self.seen or "nothing happened"
            except ConnectionError:
                self.seen = f"the gateway closed the connection; {self.taken // 1024} KiB had been written"

    def _serve(self, connection: socket.socket) -> None:
        connection.sendall(b"220 relay.example\r\n")
        connection.recv(4096)
        while self.taken < self._octets:
            connection.sendall(self._piece)
            self.taken += len(self._piece)
        connection.sendall(self._end)
        said = connection.recv(4096)
        if not said:
            raise ConnectionResetError
        self.seen = f"the gateway took all {self.taken // 1024} KiB and went on"


def _rude_relay(lines: bytes, octets: int, end: bytes = b"") -> Run:
    def run(gateway: Postroom, sink: Sink) -> str:
        relay = RudeRelay(lines, octets, end)
        relay.start()
        gateway.command("accounts", "edit", "relay", "--port", str(relay.port), "--max-connections", "1")
        with smtplib.SMTP("127.0.0.1", gateway.port, timeout=_SECONDS) as client:
            client.sendmail(SENDER, [RECIPIENT], f"From: <{SENDER}>\r\n\r\ntext\r\n")
        relay.join(3 * _SECONDS)
        if relay.is_alive():
            raise Void("the gateway neither read on nor closed the connection to a relay without end")
        return relay.seen

    return run


_REPLY_LINE = b"250-" + b"x" * 60 + b"\r\n"

ATTACKS = (
    Attack("a command of 8 MiB without a line end", _long_command),
    Attack("a header of 8 MiB without a line end", _long_line(b"Subject: ")),
    Attack("a body of 8 MiB without a line end", _long_line(b"Subject: long\r\n\r\n"), cache_full=True),
    Attack("10,000 recipients of one message", _many_recipients),
    Attack("200 clients with half a command", _slow(half_a_command)),
    Attack("200 clients that trickle their content", _slow(trickled_content)),
    Attack("a relay's reply of endless lines", _rude_relay(_REPLY_LINE, _ENDLESS_OCTETS)),
    Attack("a relay's reply line without end", _rude_relay(b"x" * _PIECE, _ENDLESS_OCTETS)),
    Attack("a relay's reply of 1 MiB", _rude_relay(_REPLY_LINE, MIB, b"250 ok\r\n")),
    Attack(
        "a message of 50 MiB, in and out",
        _large_message(50),
        CONTENT_GOAL_MIB,
        cache_full=True,
        settings={"POSTROOM_SMTP__MAX_SIZE_BYTES": "64MiB"},
    ),
)


def growth(attack: Attack, folder: Path) -> dict[str, Any]:
    """The row of `attack`: what came of it, and by how many MiB the gateway's peak grew.

    Raises:
        Void: the gateway does not run, or has ended under the attack.
    """
    made: list[Postroom] = []

    def make(inside: Path, relay_port: int) -> MeasuredGateway:
        made.append(Postroom(inside, relay_port, settings=attack.settings))
        return made[0]

    with running(make, folder) as (gateway, sink):
        send(gateway.port, sink, WARM_UP, 10)
        if attack.cache_full:
            _large_message(CACHE_MIB)(made[0], sink)
        rest(gateway)
        forget_peak(gateway.pid)
        before, _ = resident_and_peak_bytes(gateway.pid)
        seen = attack.run(made[0], sink)
        rest(gateway)
        try:
            _, peak = resident_and_peak_bytes(gateway.pid)
        except FileNotFoundError:
            peak = 0
        if not peak:
            raise Void(f"the gateway has ended: {attack.what}")
    grown = round((peak - before) / MIB, 1)
    figures = {
        "what": attack.what,
        "seen": seen,
        "before_mib": round(before / MIB, 1),
        "peak_mib": round(peak / MIB, 1),
    }
    return {**figures, "unit": "MiB", "value": grown, "goal": attack.goal_mib, "met": grown <= attack.goal_mib}
