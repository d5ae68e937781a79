"""Attacks on the listeners of a running gateway: whatever a client sends, others are served and memory stays flat."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import trustme

from tests.e2e.attackers import EVIL, SMUGGLED, VICTIM, Client, Target, codes, envelope, is_bare, standing

MEBIBYTE = 1024 * 1024
CROWD = 200
AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One gateway for all attacks, with a clear, a STARTTLS and a TLS listener, and one for devices."""
    folder = tmp_path_factory.mktemp("gateway")
    issued = AUTHORITY.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    files = {"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
    devices = {"profile": "devices", "networks": ["127.0.0.0/9"], "allow_clear_login": True}
    with standing(folder, [{}, {"tls": "starttls"} | files, {"tls": "implicit"} | files, devices]) as target:
        yield target


@pytest.fixture
def clear(gateway: Target) -> Iterator[Client]:
    """A client that has said EHLO on the clear listener."""
    with Client(gateway.ports[0]) as client:
        assert client.ask(b"EHLO client.example").startswith(b"250-")
        yield client


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


# TLS --------------------------------------------------------------------------------------------------------------


def test_commands_in_clear_behind_starttls_are_not_read_after_it(gateway: Target) -> None:
    with gateway.unharmed(), Client(gateway.ports[1]) as client:
        client.ask(b"EHLO client.example")
        client.send(b"STARTTLS\r\nEHLO evil.example\r\n" + SMUGGLED)
        assert client.reply().startswith(b"220 ")
        client.start_tls(trusting())
        assert client.ask(b"RCPT TO:<to@relay.example>") == b"503 5.5.1 Send EHLO first\r\n"
        recipient = f"{gateway.name()}@good.example"
        client.begin(recipient)
        client.send(b"Subject: over TLS\r\n\r\n.\r\n")
        gateway.arrives(client.reply())
        assert len(gateway.healthy.taken_for(recipient)) == 1
    gateway.knows_nothing_of_it()


def test_commands_in_clear_in_place_of_a_handshake_are_not_read(gateway: Target) -> None:
    with gateway.unharmed(), Client(gateway.ports[1]) as client:
        client.ask(b"EHLO client.example")
        assert client.ask(b"STARTTLS").startswith(b"220 ")
        client.send(b"EHLO evil.example\r\n" + SMUGGLED)
        assert codes(client.to_the_end()) == []
    gateway.knows_nothing_of_it()


def test_tls_clients_that_speak_before_they_are_spoken_to_are_all_heard(gateway: Target) -> None:
    hello = client_hello()
    with gateway.unharmed():
        for _ in range(20):
            with Client(gateway.ports[2], greeting=b"") as client:
                client.send(hello)
                assert client.socket.recv(1) == b"\x16"  # a handshake record, no silence


@pytest.mark.parametrize("listener", [1, 2], ids=["starttls", "implicit"])
def test_200_handshakes_that_never_end_hold_up_nobody(gateway: Target, listener: int) -> None:
    hello = client_hello()
    # What OpenSSL and the loop keep for a connection over TLS.
    with gateway.unharmed(CROWD * 128 * 1024), contextlib.ExitStack() as crowd:
        for _ in range(CROWD):
            client = crowd.enter_context(Client(gateway.ports[listener], greeting=b"220 " if listener == 1 else b""))
            if listener == 1:
                client.ask(b"EHLO client.example")
                assert client.ask(b"STARTTLS").startswith(b"220 ")
            client.send(hello[: len(hello) // 2])
        gateway.serves_others()


def client_hello() -> bytes:
    """What a TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        trusting().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


# Other protocols --------------------------------------------------------------------------------------------------

POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\nEHLO evil.example\r\n" + SMUGGLED


@pytest.mark.parametrize(
    ("hello", "reply"),
    [
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"554 5.5.1 This is a mail server\r\n", id="HTTP GET"
        ),
        pytest.param(POST, b"554 5.5.1 This is a mail server\r\n", id="HTTP POST"),
        pytest.param(client_hello(), b"554 5.5.1 TLS was not started\r\n", id="TLS"),
    ],
)
def test_another_protocol_is_told_so_and_closed(gateway: Target, hello: bytes, reply: bytes) -> None:
    with gateway.unharmed(), Client(gateway.ports[0]) as client:
        client.send(hello)
        assert client.to_the_end() == reply
    gateway.knows_nothing_of_it()


def test_ssh_gets_errors_until_it_leaves(gateway: Target) -> None:
    with gateway.unharmed(), Client(gateway.ports[0]) as client:
        assert client.ask(b"SSH-2.0-OpenSSH_9.2").startswith(b"500 5.5.2 ")
        said = client.pour(struct.pack(">IB", 1532, 8) + bytes(range(256)) * 6 + b"\r\n", lambda said: True)
        assert set(codes(said + client.ask(b""))) == {500}


def test_smtp_in_clear_on_a_tls_listener_gets_no_reply(gateway: Target) -> None:
    with gateway.unharmed(), Client(gateway.ports[2], greeting=b"") as client:
        client.send(b"EHLO evil.example\r\n" + SMUGGLED)
        assert codes(client.to_the_end()) == []
    gateway.knows_nothing_of_it()


# Crowds -----------------------------------------------------------------------------------------------------------


def test_200_clients_with_half_a_command_hold_up_nobody(gateway: Target) -> None:
    with gateway.unharmed(), contextlib.ExitStack() as crowd:
        clients = [crowd.enter_context(Client(gateway.ports[0])) for _ in range(CROWD)]
        for octet in b"EHLO slow.example":
            for client in clients:
                client.send(bytes([octet]))
        gateway.serves_others()
        for client in clients:
            assert client.ask(b"").startswith(b"250-")


def test_200_clients_whose_content_trickles_hold_up_nobody_and_arrive(gateway: Target) -> None:
    recipients = [f"{gateway.name()}@slow.example" for _ in range(CROWD)]
    with gateway.unharmed(), contextlib.ExitStack() as crowd:
        clients = [crowd.enter_context(Client(gateway.ports[0])) for _ in recipients]
        for client, recipient in zip(clients, recipients, strict=True):
            client.begin(recipient)
        for octet in b"Subject: slow\r\n\r\nslow":
            for client in clients:
                client.send(bytes([octet]))
        gateway.serves_others()
        for client in clients:
            client.send(b"\r\n.\r\n")
        for client, recipient in zip(clients, recipients, strict=True):
            gateway.arrives(client.reply())
            (taken,) = gateway.healthy.taken_for(recipient)
            assert taken.content.endswith(b"\r\n\r\nslow\r\n")


def test_200_clients_that_send_and_read_nothing_hold_up_nobody(gateway: Target) -> None:
    # Of each connection one read of the loop waits in memory, and what went out behind the last write it took.
    with gateway.unharmed(CROWD * 384 * 1024), contextlib.ExitStack() as crowd:
        clients = [crowd.enter_context(Client(gateway.ports[0], far=True)) for _ in range(CROWD)]
        while sum(client.push(b"EHLO a\r\n" * 100_000) for client in clients):
            gateway.serves_others()  # between two looks at each of them the loop has looked at all


def test_a_client_that_sends_and_never_reads_is_not_read_either(gateway: Target) -> None:
    with gateway.unharmed(), Client(gateway.ports[0], far=True) as client:
        sent = 0
        while pushed := client.push(b"EHLO a\r\n" * 100_000):
            sent += pushed
            assert sent < 64 * MEBIBYTE
            gateway.serves_others()


def test_1000_connections_torn_down_at_every_stage_leave_nothing(gateway: Target) -> None:
    stages = [b"EHLO client", b".example\r\n", envelope(VICTIM, EVIL), b"DATA\r\n", b"Subject: x\r\n\r\nhalf a line"]
    with gateway.unharmed():
        for n in range(1000):
            with Client(gateway.ports[0]) as client:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, no FIN
                client.send(b"".join(stages[: n % 6]))
    gateway.knows_nothing_of_it()


# Floods of commands -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("commands", [(b"NOOP",), (b"RSET",), (b"NOOP", b"RSET"), (b"HELP",), (b"VRFY x",)])
def test_100000_pipelined_commands_get_their_replies(gateway: Target, clear: Client, commands: Sequence[bytes]) -> None:
    rounds = 100_000 // len(commands)
    with gateway.unharmed():
        said = clear.pour(b"".join(command + b"\r\n" for command in commands) * rounds + b"QUIT\r\n")
        wanted = {b"NOOP": 250, b"RSET": 250, b"HELP": 214, b"VRFY x": 252}
        assert codes(said) == [wanted[command] for command in commands] * rounds + [221]


@pytest.mark.parametrize(
    "line",
    [b"", b"DATA", b"MAIL", b"RCPT", b"AUTH", b"STARTTLS", b".", b"MAIL FROM:<", b"RCPT TO:<a@b.example>", b"\0"],
)
def test_bare_and_broken_commands_end_the_connection_at_the_twentieth(
    gateway: Target, clear: Client, line: bytes
) -> None:
    with gateway.unharmed():
        said = clear.pour((line + b"\r\n") * 100_000)
        assert len(codes(said)) <= 21
        assert said.endswith(b"421 4.7.0 Too many errors\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"XCLIENT ADDR=192.0.2.1 LOGIN=boss",
        b"XFORWARD ADDR=192.0.2.1",
        b"EXPN staff",
        b"ETRN example.org",
        b"ATRN example.org",
        b"TURN",
        b"SEND FROM:<a@b.example>",
        b"SOML FROM:<a@b.example>",
        b"SAML FROM:<a@b.example>",
        b"BURL imap://x LAST",
        b"DEBUG",
        b"WIZ",
        b"XADR",
        b"X-LINK2STATE",
    ],
)
def test_commands_that_are_not_for_clients_are_refused_and_change_nothing(
    gateway: Target, clear: Client, line: bytes
) -> None:
    recipient = f"{gateway.name()}@good.example"
    with gateway.unharmed():
        assert codes(clear.ask(line)) in ([500], [502])
        clear.send(envelope(recipient) + b"DATA\r\n")
        assert [codes(clear.reply()) for _ in range(3)] == [[250], [250], [354]]
        clear.send(b"Subject: x\r\n\r\n.\r\n")
        reply = clear.reply()
        gateway.arrives(reply)
        shown = gateway.api.ask("GET", f"messages/{reply.split()[-1].decode()}")
        assert (shown["peer"], shown["application"]) == ("127.0.0.1", "local")


# Logins -----------------------------------------------------------------------------------------------------------


def plain(login: str, password: str) -> bytes:
    return b"AUTH PLAIN " + b64encode(f"\0{login}\0{password}".encode())


def log_in(gateway: Target, login: str, password: str, source: str) -> bytes:
    """The reply to one login on a connection of its own."""
    with Client(gateway.ports[0], source=source) as client:
        client.ask(b"EHLO client.example")
        return client.ask(plain(login, password))


def add_application(gateway: Target, name: str) -> str:
    """An application that logs in; its password."""
    answer = gateway.api.ask("POST", "applications", {"name": name, "senders": ["*"], "accounts": ["healthy"]})
    password: str = answer["password"]
    return password


def test_guessing_from_one_address_is_throttled_and_others_log_in(gateway: Target) -> None:
    good, other = gateway.name(), gateway.name()
    password, other_password = add_application(gateway, good), add_application(gateway, other)
    with gateway.unharmed():
        replies = [log_in(gateway, f"guess{n}", "wrong", "127.0.0.66") for n in range(200)]
        assert Counter(codes(b"".join(replies))) == {535: 10, 421: 190}
        assert replies[-1].startswith(b"421 4.7.0 ")
        assert log_in(gateway, good, password, "127.0.0.66").startswith(b"421 4.7.0 ")
        assert log_in(gateway, good, password, "127.0.0.2").startswith(b"235 ")
        assert log_in(gateway, other, other_password, "127.0.0.3").startswith(b"235 ")


def test_guessing_one_name_from_many_addresses_is_throttled_and_others_log_in(gateway: Target) -> None:
    name, other = gateway.name(), gateway.name()
    password, other_password = add_application(gateway, name), add_application(gateway, other)
    with gateway.unharmed():
        replies = [log_in(gateway, name, f"guess{n}", f"127.0.7.{n + 1}") for n in range(100)]
        assert Counter(codes(b"".join(replies))) == {535: 10, 421: 90}
        assert log_in(gateway, name, password, "127.0.0.2").startswith(b"421 4.7.0 ")
        assert log_in(gateway, other, other_password, "127.0.7.1").startswith(b"235 ")


def test_guessing_on_one_connection_ends_it(gateway: Target) -> None:
    with gateway.unharmed(), Client(gateway.ports[0], source="127.0.0.77") as client:
        client.ask(b"EHLO client.example")
        said = client.pour((plain("nobody", "wrong") + b"\r\n") * 1000)
        assert Counter(codes(said)) == {535: 9, 421: 1}


# Devices ----------------------------------------------------------------------------------------------------------

SCAN = b"From: scanner@source.example\nTo: you@good.example\nSubject: Scan\n\nPage 1\n.\nPage 2\n"


@pytest.mark.parametrize("hello", [b"EHLO", b"EHLO Scanner (2nd floor)", b"HELO \xe9tage_2"])
def test_a_scanner_is_served_by_a_devices_listener(gateway: Target, hello: bytes) -> None:
    name, recipient = gateway.name(), f"{gateway.name()}@good.example"
    password = add_application(gateway, name)
    with gateway.unharmed(), Client(gateway.ports[3]) as client:
        assert codes(client.ask(hello)) == [250]
        assert client.ask(b"AUTH LOGIN").startswith(b"334 ")
        assert client.ask(b64encode(name.encode())).startswith(b"334 ")
        assert client.ask(b64encode(password.encode())).startswith(b"235 ")
        client.send(envelope(recipient, "scanner@source.example") + b"DATA\r\n")
        assert [codes(client.reply()) for _ in range(3)] == [[250], [250], [354]]
        client.send(SCAN + b"\r\n.\r\n")
        gateway.arrives(client.reply())
        (taken,) = gateway.healthy.taken_for(recipient)
        assert not is_bare(taken.content)
        assert taken.content.endswith(b"\r\n\r\nPage 1\r\n.\r\nPage 2\r\n\r\n")
        assert taken.content.count(b"\r\nDate: ") == taken.content.count(b"\r\nMessage-ID: ") == 1


def test_a_strict_listener_tells_a_scanner_of_the_setting_that_would_take_it(gateway: Target) -> None:
    with gateway.unharmed(), Client(gateway.ports[0]) as client:
        said = client.ask(b"EHLO Scanner (2nd floor)")
        assert said.startswith(b"501 5.5.4 ")
        assert b'listener setting profile = "devices"' in said


def test_a_client_from_elsewhere_is_turned_away_by_a_devices_listener(gateway: Target) -> None:
    with gateway.unharmed():
        for _ in range(50):
            with Client(gateway.ports[3], source="127.200.0.1", greeting=b"") as client:
                client.pour(b"EHLO evil.example\r\n" + SMUGGLED, lambda said: said.endswith(b"\r\n"))
        with Client(gateway.ports[3], source="127.200.0.1", greeting=b"554 5.7.1 ") as client:
            assert client.to_the_end() == b""
    gateway.knows_nothing_of_it()
