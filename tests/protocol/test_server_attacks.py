"""What strangers, scanners of ports and broken programs send: refused in its turn, and nothing of it is kept."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from postroom.protocol.smtp.server import ServerLimits, State
from tests.submission_door import Dialogue, codes, ready

BEGIN = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
PIECE = 65536
EIGHT_MB = 8 * 1024 * 1024


@pytest.fixture
def memory() -> Iterator[None]:
    """The test fails where more than 1 MiB is held at a time."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("verb", [b"", b"NOOP ", b"MAIL FROM:<", b"AUTH PLAIN ", b"\x00", b"\xff"])
def test_a_command_of_8_mb_without_a_line_end_is_refused_once(verb: bytes) -> None:
    dialogue = ready(clear_login=True)
    said = dialogue.send(verb)
    for _ in range(EIGHT_MB // PIECE):
        said += dialogue.send(b"A" * PIECE)
    assert codes(said) == [500]
    assert codes(dialogue.send(b"\r\nNOOP\r\n")) == [250]


@pytest.mark.usefixtures("memory")
def test_a_login_of_8_mb_without_a_line_end_is_refused_once() -> None:
    dialogue = ready(clear_login=True)
    said = dialogue.send(b"AUTH LOGIN\r\n")
    for _ in range(EIGHT_MB // PIECE):
        said += dialogue.send(b"A" * PIECE)
    assert codes(said) == [334, 500]
    assert codes(dialogue.send(b"\r\nNOOP\r\n")) == [250]


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("begin", [b"DATA\r\n", b"BDAT 8388608\r\n"], ids=["DATA", "BDAT"])
def test_content_of_8_mb_without_a_line_end_is_handed_on_as_it_comes(begin: bytes) -> None:
    dialogue = ready()
    dialogue.send(BEGIN + begin)
    machine = dialogue.machine
    size = 0
    for _ in range(EIGHT_MB // PIECE):
        machine.receive(b"x" * PIECE)
        while (event := machine.next_event()) is not None:
            assert event.slot is None  # type: ignore[union-attr]
            size += len(event.data)  # type: ignore[union-attr]
    assert size == EIGHT_MB


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("begin", [b"DATA\r\n", b"BDAT 8388610 LAST\r\n"], ids=["DATA", "BDAT"])
def test_content_over_the_limit_is_dropped_as_it_comes(begin: bytes) -> None:
    dialogue = ready(limits=ServerLimits(max_size_bytes=PIECE))
    dialogue.send(BEGIN + begin)
    said = b"".join(dialogue.send(b"x" * PIECE) for _ in range(EIGHT_MB // PIECE))
    said += dialogue.send(b"\r\n.\r\n" if begin.startswith(b"DATA") else b"\r\n")
    assert codes(said) == [552]
    assert dialogue.messages == []


@pytest.mark.parametrize("pipelined", [False, True], ids=["one by one", "at once"])
def test_10_000_recipients(pipelined: bool) -> None:
    dialogue = ready()
    dialogue.send(b"MAIL FROM:<a@b.test>\r\n")
    lines = [b"RCPT TO:<r%d@d.test>\r\n" % number for number in range(10_000)]
    said = dialogue.send(b"".join(lines)) if pipelined else b"".join(map(dialogue.send, lines))
    # A thousand are taken, as many more may come later (RFC 5321 section 4.5.3.1.10), and then it is abuse.
    assert codes(said) == [250] * 1000 + [452] * 1020 + [421]
    assert dialogue.machine.is_finished
    assert dialogue.messages == []


def test_10_000_recipients_where_so_many_may_be() -> None:
    dialogue = ready(limits=ServerLimits(max_recipients=10_000))
    dialogue.send(b"MAIL FROM:<a@b.test>\r\n")
    lines = b"".join(b"RCPT TO:<r%d@d.test>\r\n" % number for number in range(10_000))
    assert codes(dialogue.send(lines + b"DATA\r\n")) == [250] * 10_000 + [354]
    assert codes(dialogue.send(b"x\r\n.\r\n")) == [250]
    assert dialogue.messages[0][1] == [f"r{number}@d.test" for number in range(10_000)]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"EHLO", 501),
        (b"HELO", 501),
        (b"EHLO ", 501),
        (b"MAIL", 501),
        (b"MAIL ", 501),
        (b"MAIL FROM", 501),
        (b"MAIL FROM:", 501),
        (b"MAIL FROM:<", 501),
        (b"AUTH", 501),
        (b"AUTH ", 501),
        (b"VRFY", 252),
        (b"HELP", 214),
        (b"NOOP", 250),
        (b"RSET", 250),
        (b"RCPT", 503),
        (b"DATA", 503),
        (b"", 500),
        (b" ", 500),
        (b"   ", 500),
        (b"\t", 500),
        (b".", 500),
        (b"M", 500),
        (b"MAI", 500),
        (b"EHLOx", 500),
    ],
)
def test_bare_commands_are_answered(line: bytes, code: int) -> None:
    dialogue = ready(clear_login=True)
    assert codes(dialogue.send(line + b"\r\nNOOP\r\n")) == [code, 250]
    assert dialogue.machine.state is State.READY


def test_a_bare_rcpt_within_a_transaction_is_answered() -> None:
    dialogue = ready()
    assert (
        codes(dialogue.send(b"MAIL FROM:<a@b.test>\r\nRCPT\r\nRCPT TO\r\nRCPT TO:\r\nRCPT TO:<>\r\n"))
        == [250] + [501] * 4
    )


def test_a_bare_bdat_ends_the_connection() -> None:
    dialogue = ready()
    assert codes(dialogue.send(BEGIN + b"BDAT\r\nNOOP\r\n")) == [250, 250, 501]
    assert dialogue.machine.is_finished


def test_empty_lines_alone_end_in_too_many_errors() -> None:
    dialogue = ready()
    assert codes(dialogue.send(b"\r\n" * 100)) == [500] * 20 + [421]
    assert dialogue.machine.is_finished


@pytest.mark.parametrize(
    "line",
    [
        b"XCLIENT ADDR=127.0.0.1 NAME=localhost",
        b"XCLIENT LOGIN=erp",
        b"XFORWARD ADDR=127.0.0.1",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 25",
        b"XADR x",
        b"XSTA",
        b"XEXPS",
        b"XAUTH x",
        b"X-ANONYMOUSTLS",
        b"XVERP",
        b"WIZ",
        b"DEBUG",
    ],
)
@pytest.mark.parametrize("greeted", [False, True])
def test_xclient_and_friends_are_refused_and_change_nothing(line: bytes, greeted: bool) -> None:
    dialogue = Dialogue(clear_login=True)
    if greeted:
        dialogue.send(b"EHLO c.test\r\n")
    before = dialogue.machine.state
    offered = dialogue.send(line + b"\r\n")
    assert codes(offered) == [502 if line.startswith((b"XCLIENT", b"XFORWARD")) else 500]
    assert dialogue.machine.state is before
    assert not dialogue.machine.logged_in
    assert b"XCLIENT" not in dialogue.send(b"EHLO c.test\r\n")


@pytest.mark.parametrize("parameter", [b"XVERP", b"XCLIENT=x", b"ADDR=127.0.0.1", b"X-ORIGIN=1"])
def test_private_parameters_are_refused(parameter: bytes) -> None:
    assert codes(ready().send(b"MAIL FROM:<a@b.test> " + parameter + b"\r\n")) == [555]


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\nHost: mx.test\r\n\r\n",
        b"GET /\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 90\r\n\r\n" + b"EHLO x\r\n" + BEGIN + b"DATA\r\nx\r\n.\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)),
        b"\x16\x03\x01\n\r\nEHLO x\r\n" + BEGIN,
    ],
    ids=["HTTP", "HTTP without CR", "HTTP 2", "HTTP with mail in its body", "TLS", "TLS with a line end in it"],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_http_and_tls_hellos_get_no_further(hello: bytes, step: int) -> None:
    dialogue = Dialogue(starttls=True, any_helo=True)
    said = b"".join(dialogue.send(hello[at : at + step]) for at in range(0, len(hello), step))
    assert codes(said)[-1] in (554, 500)
    assert 250 not in codes(said)
    assert dialogue.messages == []
    if hello != b"GET /\n":
        assert dialogue.machine.is_finished


@pytest.mark.parametrize(
    "octets", [b"SSH-2.0-x\r\n", b"\x05\x01\x00\r\n", b"\x80\x2e\x01\r\n", b"\x00" * 100 + b"\r\n"]
)
def test_other_protocols_are_bad_lines(octets: bytes) -> None:
    assert codes(Dialogue().send(octets + b"NOOP\r\n")) == [500, 250]


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_commands_in_clear_behind_starttls_are_thrown_away(step: int) -> None:
    dialogue = ready(starttls=True, clear_login=True)
    wire = b"STARTTLS\r\nEHLO evil\r\nAUTH PLAIN AGVycAByaWdodA==\r\n" + BEGIN + b"BDAT 3 LAST\r\nx\r\n"
    said = b"".join(dialogue.send(wire[at : at + step]) for at in range(0, len(wire), step))
    assert codes(said) == [220]
    dialogue.machine.tls_started()
    assert dialogue.turn() == b""
    assert (dialogue.logins, dialogue.messages) == ([], [])
    assert codes(dialogue.send(BEGIN + b"EHLO c.test\r\n")) == [503, 503, 250]


def test_starttls_between_chunks_or_within_a_transaction_is_refused() -> None:
    dialogue = ready(starttls=True)
    said = dialogue.send(b"MAIL FROM:<a@b.test>\r\nSTARTTLS\r\nRCPT TO:<c@d.test>\r\nBDAT 1\r\nxSTARTTLS\r\n")
    assert codes(said) == [250, 503, 250, 250, 503]
    assert not dialogue.tls_asked
