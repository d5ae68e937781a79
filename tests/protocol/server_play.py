"""Plays a server transcript: `C:` is sent, on the machine in memory or on a listener over a socket."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from postroom.config import ListenerSettings, SmtpSettings
from postroom.errors import Refused
from postroom.mime.head import split
from postroom.model.envelope import Envelope
from postroom.protocol.smtp import server_events as events
from postroom.protocol.smtp.server import ServerLimits, ServerMachine
from postroom.submission.clients import is_loopback
from postroom.submission.listener import limits
from tests.protocol.transcript_file import Said, Transcript
from tests.submission_door import ACCEPTED, ERP, Applications, KeepingGateway, RawClient, listening

Cut = Callable[[bytes], list[bytes]]

ELSEWHERE = "192.0.2.7"


@dataclass
class Desk:
    """A server machine and who answers it, as a listener does that knows `erp` and, if `passwordless`, the address."""

    machine: ServerMachine
    passwordless: bool = True
    end_of_data: bytes = ACCEPTED
    taken: list[tuple[Envelope, bytes]] = field(default_factory=list)
    awaits_tls: bool = False
    _pieces: list[bytes] = field(default_factory=list)

    def hear(self, octets: bytes) -> bytes:
        """What the server says to them."""
        self.machine.receive(octets)
        return self.turn()

    def turn(self) -> bytes:
        """Answer all there is; what the server says."""
        said = b""
        while True:
            while (event := self.machine.next_event()) is not None:
                self._answer(event)
            replies = self.machine.data_to_send()
            if not replies:
                return said
            said += replies

    def hang_up(self) -> bytes:
        """The client sends no more; what the server says to that."""
        self.machine.receive_eof()
        return self.turn()

    def start_tls(self) -> bytes:
        """The handshake; what the server says behind it."""
        assert self.awaits_tls
        self.awaits_tls = False
        self.machine.tls_started()
        return self.turn()

    def _answer(self, event: events.Event) -> None:
        machine = self.machine
        match event:
            case events.MailFrom(path=path):
                self._mail(path)
            case events.RcptTo():
                machine.accept()
            case events.Login(login=login, password=password):
                if (login, password) == ("erp", "right"):
                    machine.accept()
                else:
                    machine.refuse(535, "5.7.8", "Authentication failed")
            case events.StartTls():
                self.awaits_tls = True
            case events.ContentRefused():
                self._pieces.clear()
            case events.Content(data=data, slot=slot):
                self._pieces.append(data)
                if slot is not None:
                    self._take(slot)

    def _mail(self, path: str) -> None:
        machine = self.machine
        if machine.logged_in:
            if path in ERP.senders:
                machine.accept()
            else:
                machine.refuse(550, "5.7.1", f"<{path}> is not an allowed sender of application erp")
        elif self.passwordless:
            machine.accept()
        elif machine.offers_auth:
            machine.refuse(530, "5.7.0", "Authentication required")
        elif machine.offers_starttls:
            machine.refuse(530, "5.7.0", "Must issue a STARTTLS command first")
        else:
            machine.refuse(530, "5.7.0", 'Authentication required (profile = "devices", allow_clear_login = true)')

    def _take(self, slot: events.ReplySlot) -> None:
        machine, content = self.machine, b"".join(self._pieces)
        self._pieces.clear()
        if self.end_of_data.startswith(b"2"):
            self.taken.append((machine.envelope(not content.isascii()), content))
        self._fill(slot)

    def _fill(self, slot: events.ReplySlot) -> None:
        self.machine.fill(slot, self.end_of_data)


def desk(transcript: Transcript) -> Desk:
    """A desk with the options of a transcript."""
    options = Options(transcript)
    is_here, is_for_devices = is_loopback(options.client), options.listener.get("profile") == "devices"
    machine = ServerMachine(
        options.limits,
        "mx.test",
        secure=options.tls == "implicit",
        starttls=options.tls == "starttls",
        clear_login=is_here or options.listener.get("allow_clear_login") == "yes",
        normalise_bare_lf=is_here or is_for_devices,
        any_helo=is_for_devices,
    )
    end_of_data = f"{options.refusal}\r\n".encode() if options.refusal else ACCEPTED
    return Desk(machine, options.passwordless, end_of_data)


class Options:
    """What the head of a server transcript says."""

    def __init__(self, transcript: Transcript) -> None:
        rest = dict(transcript.options)
        self.client = rest.pop("client", ELSEWHERE)
        self.passwordless = rest.pop("passwordless", "yes") == "yes"
        self.refusal = rest.pop("content", "")
        self.listener: dict[str, Any] = {
            name: value.split(",") if name == "networks" else value
            for name, value in rest.items()
            if name in ListenerSettings.model_fields
        }
        self.smtp: dict[str, Any] = {name: value for name, value in rest.items() if name in SmtpSettings.model_fields}
        unknown = rest.keys() - self.listener.keys() - self.smtp.keys()
        assert not unknown, f"{transcript.name} has unknown options: {unknown}"

    @property
    def tls(self) -> str:
        """As the listener has it."""
        return str(self.listener.get("tls", "none"))

    @property
    def limits(self) -> ServerLimits:
        """As the settings make them."""
        return limits(SmtpSettings.model_validate(self.smtp))


def in_memory(transcript: Transcript, cut: Cut) -> None:
    """Play it; what the client writes at once arrives in the pieces that `cut` makes of it."""
    server = desk(transcript)
    said = server.machine.data_to_send()
    for turn in transcript.turns:
        where = f"{transcript.name}, at {turn}"
        if isinstance(turn, Said) and turn.side == "S":
            assert turn.pattern.fullmatch(said), f"{where}: {said!r}"
            said = b""
            continue
        assert said == b"", where
        if isinstance(turn, Said):
            said = b"".join(server.hear(piece) for piece in cut(turn.octets))
        elif turn == "starttls":
            said = server.start_tls()
        elif turn == "client closes":
            said = server.hang_up()
        else:
            assert turn == "server closes" and server.machine.is_finished, where
    assert said == b""
    assert server.machine.is_finished == (transcript.turns[-1] in ("server closes", "client closes"))
    _compare(transcript, server.taken)


async def over_a_socket(transcript: Transcript, certificate: dict[str, str], trusting: ssl.SSLContext) -> None:
    """Play it; `certificate` and `key` are files for localhost, whose authority `trusting` knows."""
    options = Options(transcript)
    gateway = KeepingGateway(applications=Applications(passwordless=options.passwordless))
    if options.refusal:
        code, status, text = options.refusal.split(" ", 2)
        gateway.error = Refused(text, status=status, reply_code=int(code))
    settings = {"port": 0, **options.listener, **(certificate if options.tls != "none" else {})}
    async with listening(gateway, ListenerSettings.model_validate(settings), **options.smtp) as door:
        tls: dict[str, Any] = {"ssl": trusting, "server_hostname": "localhost"} if options.tls == "implicit" else {}
        client = RawClient(*await asyncio.open_connection(*door.address, **tls))
        try:
            for turn in transcript.turns:
                await _turn(transcript, turn, client, trusting)
            if transcript.turns[-1] != "server closes" and client.writer.can_write_eof():
                client.writer.write_eof()
                assert await client.reader.read() == b"", transcript.name
        finally:
            client.close()
    _compare(transcript, [(one.envelope, gateway.content(one.content)) for one in gateway.submissions], as_split=True)


async def _turn(transcript: Transcript, turn: Said | str, client: RawClient, trusting: ssl.SSLContext) -> None:
    if isinstance(turn, Said):
        if turn.side == "C":
            client.writer.write(turn.octets)
            return
        for line in turn.lines:
            said = await (client.reply() if line.whole_reply else client.reader.readline())
            assert line.pattern.fullmatch(said), f"{transcript.name}, at {line.octets!r}: {said!r}"
    elif turn == "starttls":
        await client.writer.start_tls(trusting, server_hostname="localhost")
    elif turn == "server closes":
        assert await client.is_closed(), transcript.name
    else:
        client.writer.write_eof()


def _compare(transcript: Transcript, taken: list[tuple[Envelope, bytes]], *, as_split: bool = False) -> None:
    """`as_split`: where content has no header section, the gateway has given it an empty one."""
    listed = transcript.messages
    assert [envelope for envelope, _ in taken] == [one.envelope for one in listed], transcript.name
    for (_, content), one in zip(taken, listed, strict=True):
        expected = b"".join(split(one.content)) if as_split and one.content is not None else one.content
        assert expected in (None, content), f"{transcript.name}: {content!r}"
