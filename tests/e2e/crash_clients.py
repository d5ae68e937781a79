"""Clients of the crash test: each submission has a name, and what the gateway said about it is written down."""

from __future__ import annotations

import hashlib
import itertools
import random
import smtplib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

#: Over this the gateway stages content in pieces while it arrives.
LARGE_BYTES = 300 * 1024

#: So many letters may have been acknowledged and not have arrived; beyond that the clients wait.
BACKLOG = 300

ALLOWED, STRANGE = "source.example", "elsewhere.example"


class Fate(StrEnum):
    """What became of a submission in the eyes of its sender."""

    CUT = "cut before the end of data"  # or abandoned
    REFUSED = "refused"
    IN_DOUBT = "cut between end of data and reply"
    ACKNOWLEDGED = "acknowledged"


class Moment(StrEnum):
    """Where a client may strike."""

    ENDED = "ended"  # it has written its end of data
    ACKNOWLEDGED = "acknowledged"  # it has read the 250


@dataclass(slots=True)
class Submission:
    """One try to hand over one letter; a letter that is tried again is another submission.

    `ways` says how the sink answers each recipient (see `recording_sink`); `code` is the last reply, `generation` how
    many kills were before its fate was known.
    """

    name: str
    ways: tuple[str, ...] = ("",)
    sender_at: str = ALLOWED
    received: int = 0
    lines: int = 48
    fate: Fate = Fate.CUT
    code: int = 0
    generation: int = 0

    @property
    def is_refusable(self) -> bool:
        """Whether the gateway has a reason to refuse it: a sender that is not allowed, or a loop."""
        return self.sender_at != ALLOWED or self.received > 0

    def again(self) -> Submission:
        """The same letter under a name of its own."""
        letter, _, tries = self.name.partition("r")
        return Submission(f"{letter}r{int(tries or 0) + 1}", self.ways, self.sender_at, self.received, self.lines)

    @property
    def sender(self) -> str:
        """Its reverse-path; a report about it comes there."""
        return f"{self.name}@{self.sender_at}"

    @property
    def recipients(self) -> tuple[str, ...]:
        """A name of its own for each."""
        return tuple(f"{self.name}-{n}.{way}@sink.example".replace(".@", "@") for n, way in enumerate(self.ways))

    @property
    def body(self) -> bytes:
        """Different in every submission; some lines begin with a dot."""
        return f"Text of {self.name} that must not be lost.\r\n..\r\n.\r\n".encode() * self.lines

    @property
    def digest(self) -> str:
        """What the sink must see of the body."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def content(self) -> bytes:
        """As it is on the wire, without the end of data."""
        trace = "Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\n" * self.received
        head = f"{trace}Subject: crash {self.name}\r\nX-Crash-Id: {self.name}\r\nFrom: <{self.sender}>\r\n\r\n"
        return (head.encode() + self.body).replace(b"\r\n.", b"\r\n..")


class Refused(Exception):
    """A negative reply."""


#: What letters are like: how often, and what differs from a letter of 2 KiB to one recipient. The second kind loops,
#: the third's sender is not allowed: they are refused, after and before their content.
_KINDS: tuple[tuple[int, dict[str, Any]], ...] = (
    (75, {}),
    (3, {"received": 60}),
    (2, {"sender_at": STRANGE}),
    (5, {"ways": ("", "no", "")}),
    (4, {"ways": ("later",)}),
    (2, {"ways": ("", "later", "")}),
    (2, {"ways": ("busy",)}),
    (3, {"lines": LARGE_BYTES // 48}),
)

#: Beside letters: given up before DATA, or cut by the client one octet before the end of data.
_ABANDONED = 0.05


class Clients:
    """Threads that submit until they are told to stop; `arrived` says how many letters are at the sink."""

    def __init__(self, port: int, seed: str, arrived: Callable[[], int], threads: int = 6) -> None:
        self.port = port
        self.submissions: list[Submission] = []
        self.generation = 0
        self._arrived = arrived
        self._numbers = itertools.count(1)
        self._acknowledged = 0
        self._enough: int | None = None
        self._failures: list[BaseException] = []
        self._strikes: dict[Moment, Callable[[], None]] = {}
        self._up = threading.Event()
        self._up.set()
        self._news = threading.Condition()
        clients = [Client(self, random.Random(f"{seed}/{n}")) for n in range(threads)]
        self._threads = [threading.Thread(target=self._run, args=(client,), daemon=True) for client in clients]

    def start(self) -> None:
        """Begin to submit."""
        for thread in self._threads:
            thread.start()

    def strike(self, moment: Moment, blow: Callable[[], None]) -> None:
        """Let the client who is there first call `blow` at its next `moment`; until then none waits for room."""
        with self._news:
            self._strikes[moment] = blow
            self._news.notify_all()

    def gateway_went(self) -> None:
        """Who finds it gone waits from now on until it is back."""
        self._up.clear()
        self.generation += 1

    def gateway_came(self) -> None:
        """All go on."""
        self._up.set()

    def look_again(self) -> None:
        """Something arrived: who waits looks whether it may go on."""
        with self._news:
            self._news.notify_all()

    def finish(self, letters: int) -> list[Submission]:
        """Go on until so many letters were acknowledged; every submission with its fate."""
        self._enough = letters
        self.look_again()
        for thread in self._threads:
            thread.join(600)
            assert not thread.is_alive(), "a client hangs"
        assert self._failures == []
        return self.submissions

    def _run(self, client: Client) -> None:
        try:
            client.run()
        except BaseException as failure:
            self._failures.append(failure)

    # What a client needs

    @property
    def is_done(self) -> bool:
        """Whether no new letter is wanted."""
        return self._enough is not None and self._acknowledged >= self._enough

    def wait_until_up(self) -> None:
        """Wait while the gateway is known to be gone."""
        self._up.wait()

    def wait_for_room(self) -> None:
        """Wait while much is on its way."""
        with self._news:
            self._news.wait_for(
                lambda: self.is_done or bool(self._strikes) or self._acknowledged - self._arrived() < BACKLOG
            )

    def reached(self, moment: Moment) -> None:
        """A client is there."""
        blow = self._strikes.pop(moment, None) if self._strikes else None
        if blow is not None:
            blow()

    def number(self) -> int:
        """For the next name."""
        return next(self._numbers)

    def begin(self, submission: Submission) -> None:
        """A submission begins."""
        submission.generation = self.generation
        self.submissions.append(submission)

    def settle(self, submission: Submission, fate: Fate, code: int = 0) -> None:
        """What is known of it now."""
        submission.fate, submission.code, submission.generation = fate, code, self.generation
        if fate is Fate.ACKNOWLEDGED:
            with self._news:
                self._acknowledged += 1


class Client:
    """One of them: like a real client it tries again what was cut or put off, and comes back after a crash."""

    def __init__(self, clients: Clients, chance: random.Random) -> None:
        self._clients = clients
        self._chance = chance
        self._letter: Submission | None = None

    def run(self) -> None:
        """Submit until no more is wanted and nothing is left to be tried again."""
        while self._letter is not None or not self._clients.is_done:
            self._clients.wait_until_up()
            try:
                with smtplib.SMTP("127.0.0.1", self._clients.port, timeout=60) as client:
                    client.ehlo()
                    for _ in range(8):
                        self._step(client)
            except (OSError, smtplib.SMTPException):
                continue  # cut by this client itself, or the gateway is gone

    def _step(self, client: smtplib.SMTP) -> None:
        self._clients.wait_for_room()
        if self._letter is None:
            if self._clients.is_done:
                return
            if self._chance.random() < _ABANDONED:
                self._abandon(client, Submission(f"a{self._clients.number()}"))
                return
            ((_, differences),) = self._chance.choices(_KINDS, [often for often, _ in _KINDS])
            self._letter = Submission(f"m{self._clients.number()}", **differences)
        submission, self._letter = self._letter, self._letter.again()
        try:
            self._hand_over(client, submission)
        except Refused:
            client.rset()
        if submission.fate is Fate.ACKNOWLEDGED or submission.code >= 500:
            self._letter = None

    def _hand_over(self, client: smtplib.SMTP, submission: Submission) -> None:
        self._clients.begin(submission)
        self._envelope(client, submission)
        self._expect(submission, client.docmd("DATA"), 354)
        if self._chance.random() < 0.5:
            self._clients.settle(submission, Fate.IN_DOUBT)  # until its reply is read
            client.send(submission.content + b".\r\n")
        else:
            client.send(submission.content + b".\r")  # who is cut here has not ended it
            self._clients.settle(submission, Fate.IN_DOUBT)
            client.send(b"\n")
        self._clients.reached(Moment.ENDED)
        self._expect(submission, client.getreply(), 250)
        self._clients.reached(Moment.ACKNOWLEDGED)
        self._clients.settle(submission, Fate.ACKNOWLEDGED)

    def _envelope(self, client: smtplib.SMTP, submission: Submission) -> None:
        self._expect(submission, client.mail(submission.sender), 250)
        for recipient in submission.recipients:
            self._expect(submission, client.rcpt(recipient), 250)

    def _expect(self, submission: Submission, reply: tuple[int, bytes], code: int) -> None:
        if reply[0] != code:
            self._clients.settle(submission, Fate.REFUSED, reply[0])
            raise Refused

    def _abandon(self, client: smtplib.SMTP, submission: Submission) -> None:
        self._clients.begin(submission)
        self._envelope(client, submission)
        if self._chance.random() < 0.5:
            client.rset()
            return
        client.docmd("DATA")
        client.send(submission.content + b".\r")
        client.close()
        raise smtplib.SMTPServerDisconnected("cut by the test")
