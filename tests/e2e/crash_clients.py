"""Clients of the crash test: each message has a name, and what the gateway said about it is written down."""

from __future__ import annotations

import itertools
import random
import smtplib
import threading
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """What became of each message in the eyes of its sender."""

    acknowledged: set[str] = field(default_factory=set)  # end of data, 250
    unanswered: set[str] = field(default_factory=set)  # end of data, no reply
    not_sent: set[str] = field(default_factory=set)  # refused, abandoned or cut before the end of data


def content(name: str, received: int = 0) -> bytes:
    """A message of about 2 KiB that says its name in a header field and in its subject."""
    trace = "Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\n" * received
    head = f"{trace}Subject: crash {name}\r\nX-Crash-Id: {name}\r\nFrom: <sender@source.example>\r\n\r\n"
    return (head + "Text of a message that must not be lost.\r\n" * 48).encode()


class Clients:
    """Threads that submit until the gateway is gone; most messages are sent well, some are not."""

    def __init__(self, port: int, seed: int, threads: int = 4) -> None:
        self.ledger = Ledger()
        self._port = port
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._submit, args=(random.Random(f"{seed}/{n}"),), daemon=True)
            for n in range(threads)
        ]

    def start(self) -> None:
        """Begin to submit."""
        for thread in self._threads:
            thread.start()

    def join(self) -> Ledger:
        """Wait until every client has seen the end of its connection; the ledger is complete then."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"
        return self.ledger

    def _submit(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self._port, timeout=30) as client:
                    for _ in range(8):
                        self._one(client, chance)
            except (OSError, smtplib.SMTPException):
                continue  # cut by the client itself, or the gateway is gone; `_stop` ends the loop

    def _one(self, client: smtplib.SMTP, chance: random.Random) -> None:
        name = f"m{next(self._numbers)}"
        way = chance.choices((self._whole, self._loop, self._reset, self._cut), (90, 4, 3, 3))[0]
        way(client, name)

    def _envelope(self, client: smtplib.SMTP, name: str) -> None:
        client.ehlo_or_helo_if_needed()
        if client.mail("sender@source.example")[0] != 250 or client.rcpt(f"{name}@sink.example")[0] != 250:
            raise smtplib.SMTPException("envelope refused")

    def _whole(self, client: smtplib.SMTP, name: str, received: int = 0) -> None:
        self.ledger.not_sent.add(name)  # until its end is written
        self._envelope(client, name)
        if client.docmd("DATA")[0] != 354:
            raise smtplib.SMTPException("no 354")
        self.ledger.not_sent.discard(name)
        self.ledger.unanswered.add(name)  # until its reply is read
        client.send(content(name, received) + b".\r\n")
        code, _ = client.getreply()
        self.ledger.unanswered.discard(name)
        (self.ledger.acknowledged if code == 250 else self.ledger.not_sent).add(name)

    def _loop(self, client: smtplib.SMTP, name: str) -> None:
        """Refused after its content: it has been through too many servers."""
        self._whole(client, name, received=60)

    def _reset(self, client: smtplib.SMTP, name: str) -> None:
        """Abandoned before DATA."""
        self.ledger.not_sent.add(name)
        self._envelope(client, name)
        client.rset()

    def _cut(self, client: smtplib.SMTP, name: str) -> None:
        """The connection ends one octet before the end of data."""
        self.ledger.not_sent.add(name)
        self._envelope(client, name)
        client.docmd("DATA")
        client.send(content(name) + b".\r")
        client.close()
        raise smtplib.SMTPServerDisconnected("cut by the test")
