"""A POP3 login from the client's side: the dialogue under any chunking, what is refused, and the digest of APOP."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.protocol.pop3 import apop
from postroom.protocol.pop3.client import Answered, ConnectionEnded, Pop3Client, PopState
from postroom.protocol.pop3.reply import PopReply
from postroom.protocol.smtp.errors import LocalProtocolError, RemoteProtocolError
from postroom.protocol.smtp.reply_reader import ReplyLimits

#: RFC 1939 section 7, its example.
TIMESTAMP = b"<1896.697170952@dbc.mtview.ca.us>"
GREETING = b"+OK POP3 server ready " + TIMESTAMP + b"\r\n"
APOP = "c4c9334bac560ecc979e58001b3e22fb"


def reply(machine: Pop3Client, data: bytes) -> PopReply:
    """The reply that `data` makes."""
    machine.receive(data)
    event = machine.next_event()
    assert isinstance(event, Answered)
    return event.reply


def greeted(greeting: bytes = GREETING) -> Pop3Client:
    """One that may log in."""
    machine = Pop3Client()
    assert reply(machine, greeting).is_positive
    return machine


def test_apop_is_that_of_the_rfc() -> None:
    machine = greeted()
    assert machine.apop("mrose", "tanstaaf") == APOP
    assert machine.take_output() == f"APOP mrose {APOP}\r\n".encode()
    assert reply(machine, b"+OK maildrop has 1 message (369 octets)\r\n").is_positive
    assert machine.state.value == "transaction"
    machine.quit()
    assert machine.take_output() == b"QUIT\r\n"
    assert reply(machine, b"+OK dewey POP3 server signing off\r\n").command == "QUIT"
    assert machine.state is PopState.CLOSED


#: What a server says to each step of a login over STLS, and what the step is.
DIALOGUE: list[tuple[Callable[[Pop3Client], object] | None, bytes, PopReply]] = [
    (None, b"+OK ready\r\n", PopReply(True, "ready")),
    (Pop3Client.capa, b"+OK\r\nSTLS\r\nuser\r\n..odd\r\nLOGIN-DELAY 60 USER\r\n.\r\n",
     PopReply(True, "", "", ("STLS", "user", ".odd", "LOGIN-DELAY 60 USER"), "CAPA")),
    (Pop3Client.stls, b"+OK Begin TLS now\n", PopReply(True, "Begin TLS now", command="STLS")),
    (Pop3Client.tls_started, b"", PopReply(True)),
    (Pop3Client.capa, b"-ERR unknown\r\n", PopReply(False, "unknown", command="CAPA")),
    (lambda machine: machine.user("mrose"), b"+OK\r\n", PopReply(True, command="USER")),
    (lambda machine: machine.password("tan staaf"), b"-ERR [sys/temp] later\r\n",
     PopReply(False, "later", "SYS/TEMP", command="PASS")),
    (lambda machine: machine.user("mrose"), b"+OK\t go on\r\n", PopReply(True, "go on", command="USER")),
    (lambda machine: machine.password("tan staaf"), b"+OK [UTF8] hi \xe2\x9c\x93\r\n",
     PopReply(True, "hi \u2713", "UTF8", command="PASS")),
    (Pop3Client.quit, b"+OK\r\n", PopReply(True, command="QUIT")),
]  # fmt: skip


@given(st.integers(1, 7))
def test_a_dialogue_under_any_chunking(size: int) -> None:
    machine = Pop3Client()
    sent = b""
    for step, answer, expected in DIALOGUE:
        if step is not None:
            step(machine)
            sent += machine.take_output()
        events = []
        for start in range(0, len(answer), size):
            machine.receive(answer[start : start + size])
            if (event := machine.next_event()) is not None:
                events.append(event)
        assert events == ([Answered(expected)] if answer else [])
        if expected.command == "CAPA" and expected.is_positive:
            assert machine.capabilities == {"STLS": "", "USER": "", ".ODD": "", "LOGIN-DELAY": "60 USER"}
    assert machine.capabilities is None, "what was told in clear is forgotten"
    assert sent == (b"CAPA\r\nSTLS\r\nCAPA\r\nUSER mrose\r\nPASS tan staaf\r\nUSER mrose\r\nPASS tan staaf\r\nQUIT\r\n")


@pytest.mark.parametrize("behind", [b"+OK\r\n", b"x", b"\x16\x03"])
def test_what_comes_in_clear_behind_the_yes_to_stls_ends_the_connection(behind: bytes) -> None:
    machine = greeted()
    machine.stls()
    machine.receive(b"+OK Begin TLS\r\n" + behind)
    with pytest.raises(RemoteProtocolError, match="before TLS was started"):
        machine.next_event()
    machine = greeted()
    machine.stls()
    assert reply(machine, b"+OK Begin TLS\r\n").is_positive
    machine.receive(behind)
    with pytest.raises(RemoteProtocolError, match="before TLS was started"):
        machine.next_event()
    with pytest.raises(LocalProtocolError):
        machine.tls_started()


def test_a_refused_stls_leaves_all_as_it_was() -> None:
    machine = greeted()
    machine.stls()
    assert not reply(machine, b"-ERR no TLS\r\n").is_positive
    assert machine.state is PopState.AUTHORIZATION


@pytest.mark.parametrize(
    "said",
    [b"220 mail.isp.example ESMTP\r\n", b"* OK IMAP4\r\n", b"+ \r\n", b"+OKAY\r\n", b"-ERRor\r\n", b"\r\n",
     b"+ok small\r\n", b"\x15\x03\x03\x00\x02\x02\n"],
)  # fmt: skip
def test_what_is_no_pop3_is_told(said: bytes) -> None:
    machine = Pop3Client()
    machine.receive(said)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="not a POP3 reply"):
            machine.next_event()


def test_the_events_before_what_is_unasked_stand() -> None:
    machine = greeted()
    machine.user("mrose")
    assert reply(machine, b"+OK\r\n").is_positive
    machine.password("tanstaaf")
    assert reply(machine, b"+OK you are in\r\n-ERR no, you are not\r\n").is_positive
    with pytest.raises(RemoteProtocolError, match="without being asked"):
        machine.next_event()


@pytest.mark.parametrize("line", [b"+OK" + b"x" * 100, b"+OK" + b"x" * 100 + b"\r\n"])
def test_a_line_has_a_limit(line: bytes) -> None:
    machine = Pop3Client(ReplyLimits(line_bytes=100))
    machine.receive(line)
    with pytest.raises(RemoteProtocolError, match="more than 100 octets"):
        machine.next_event()


def test_a_reply_of_many_lines_has_a_limit() -> None:
    machine = Pop3Client(ReplyLimits(reply_bytes=1000))
    assert reply(machine, GREETING).is_positive
    machine.capa()
    machine.receive(b"+OK\r\n" + b"X\r\n" * 400)
    with pytest.raises(RemoteProtocolError, match="a reply of more than 1000 octets"):
        machine.next_event()


def test_the_end_of_the_connection_is_told_behind_the_last_reply() -> None:
    machine = Pop3Client()
    machine.receive(b"-ERR too many of you\r\n")
    machine.receive_eof()
    assert isinstance(machine.next_event(), Answered)
    assert isinstance(machine.next_event(), ConnectionEnded)
    assert machine.next_event() is None


@pytest.mark.parametrize("bad", ["a\r\nDELE 1", "a\nb", "a\0b", "a\x7f", "a\tb", ""])
def test_no_argument_can_end_a_line(bad: str) -> None:
    machine = greeted()
    for send in (
        lambda: machine.user(bad),
        lambda: machine.password(bad),
        lambda: machine.apop(bad, "tanstaaf"),
        lambda: machine.apop("mrose", bad),
        lambda: machine.apop("m rose", "tanstaaf"),
    )[: None if bad else 4]:
        with pytest.raises(LocalProtocolError, match=r"user name|password"):
            send()
    assert machine.take_output() == b""


@pytest.mark.parametrize(
    "send", [Pop3Client.capa, Pop3Client.stls, Pop3Client.quit, lambda machine: machine.user("mrose")]
)
def test_a_command_waits_for_the_reply_before_it(send: Callable[[Pop3Client], None]) -> None:
    machine = Pop3Client()
    with pytest.raises(LocalProtocolError):
        send(machine)
    assert reply(machine, GREETING).is_positive
    machine.capa()
    with pytest.raises(LocalProtocolError):
        send(machine)


@pytest.mark.parametrize(
    "timestamp",
    [TIMESTAMP, b"<1@[192.0.2.7]>", b"<a.b.c@d.e>", b'<"a b".1@d>', rb'<"a\"b"@d>', b"<20e3.3.65@mail.isp.example>",
     b"<Pk8/x+==.7@dovecot.example>"],
)  # fmt: skip
def test_a_timestamp_is_a_message_id(timestamp: bytes) -> None:
    assert apop.timestamp_of(b"+OK <hello> ready " + timestamp + b" at your service") == timestamp
    assert greeted(b"+OK " + timestamp + b"\r\n").timestamp == timestamp


@pytest.mark.parametrize(
    ("timestamp", "is_odd"),
    [(b"", False), (b"1896@dbc", False), (b"<>", True), (b"<1896>", True), (b"<@x>", True), (b"<a@>", True),
     (b"<a@@b>", True), (b"<a..b@c>", True), (b"<a b@c>", True), (b"<a@b.>", True), (b"<a\xffb@c>", True),
     (b"<a\x01b@c>", True), (b'<"a\x80"@c>', True), (b'<"a\x00"@c>', True), (b"<a@b@c>", True), (b"<a@[b>", True),
     (b"<" + b"a" * 300 + b"@c>", True), (b"<a@b", False)],
)  # fmt: skip
def test_nothing_else_is_hashed_with_the_password(timestamp: bytes, is_odd: bool) -> None:
    machine = greeted(b"+OK ready " + timestamp + b"\r\n")
    assert (machine.timestamp, machine.greets_oddly) == (b"", is_odd)
    with pytest.raises(LocalProtocolError, match="no timestamp"):
        machine.apop("mrose", "tanstaaf")
    assert machine.take_output() == b""


@given(st.binary(max_size=300))
def test_whatever_is_hashed_is_printable_ascii_in_brackets(greeting: bytes) -> None:
    found = apop.timestamp_of(greeting)
    assert found == b"" or (found.isascii() and found.decode().isprintable() and found[:1] == b"<" and b"@" in found)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_no_server_can_break_it(pieces: list[bytes]) -> None:
    machine = Pop3Client()
    try:
        for piece in pieces:
            machine.receive(piece)
            while isinstance(machine.next_event(), Answered):
                if machine.state is PopState.AUTHORIZATION:
                    machine.capa()
    except RemoteProtocolError:
        assert machine.state is PopState.CLOSED
