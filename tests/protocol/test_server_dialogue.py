"""The server machine's commands, their order, and what it says to those it does not serve."""

from __future__ import annotations

import pytest

from postroom.protocol.smtp import LocalProtocolError
from postroom.protocol.smtp.server import TRANSITIONS, State, Verb
from tests.submission_door import ACCEPTED, Dialogue, codes, ready

LINES: dict[Verb, bytes] = {
    Verb.EHLO: b"EHLO c.test\r\n",
    Verb.HELO: b"HELO c.test\r\n",
    Verb.MAIL: b"MAIL FROM:<a@b.test>\r\n",
    Verb.RCPT: b"RCPT TO:<c@d.test>\r\n",
    Verb.DATA: b"DATA\r\n",
    Verb.BDAT: b"BDAT 4\r\nx\r\n.",
    Verb.RSET: b"RSET\r\n",
    Verb.NOOP: b"NOOP\r\n",
    Verb.HELP: b"HELP\r\n",
    Verb.VRFY: b"VRFY someone\r\n",
    Verb.AUTH: b"AUTH LOGIN\r\n",
    Verb.STARTTLS: b"STARTTLS\r\n",
    Verb.QUIT: b"QUIT\r\n",
}
WAY: dict[State, list[Verb]] = {
    State.CONNECTED: [],
    State.READY: [Verb.EHLO],
    State.MAIL: [Verb.EHLO, Verb.MAIL],
    State.RCPT: [Verb.EHLO, Verb.MAIL, Verb.RCPT],
    State.CHUNKS: [Verb.EHLO, Verb.MAIL, Verb.RCPT, Verb.BDAT],
}

#: Where a command leads that goes on without a line of its own.
ON: dict[State, State] = {State.CHUNK: State.CHUNKS}


@pytest.mark.parametrize("verb", LINES)
@pytest.mark.parametrize("state", WAY)
def test_every_command_in_every_state_does_what_the_table_says(state: State, verb: Verb) -> None:
    dialogue = Dialogue(starttls=True, clear_login=True)
    for step in WAY[state]:
        dialogue.send(LINES[step])
    assert dialogue.machine.state is state
    replies = dialogue.send(LINES[verb])
    if (state, verb) in TRANSITIONS:
        to = TRANSITIONS[state, verb]
        assert dialogue.machine.state is ON.get(to, to)
        assert replies[:1] in b"23"
    else:
        assert dialogue.machine.state is state
        assert codes(replies) in ([503], [554])


def test_every_transition_is_reached() -> None:
    commands = {(state, verb) for state in WAY for verb in LINES}
    others = {
        (State.AUTH, Verb.LOGGED_IN): State.READY,
        (State.TLS, Verb.HANDSHAKE): State.CONNECTED,
        (State.DATA, Verb.END_OF_DATA): State.READY,
        (State.CHUNK, Verb.END_OF_CHUNK): State.CHUNKS,
        (State.CHUNK, Verb.END_OF_LAST): State.READY,
    }
    assert set(TRANSITIONS) - commands == set(others)
    assert {pair: TRANSITIONS[pair] for pair in others} == others


def test_a_message_goes_through() -> None:
    dialogue = ready()
    assert dialogue.send(b"MAIL FROM:<a@b.test>\r\n") == b"250 2.1.0 Ok\r\n"
    assert dialogue.send(b"RCPT TO:<c@d.test>\r\n") == b"250 2.1.5 Ok\r\n"
    assert codes(dialogue.send(b"DATA\r\n")) == [354]
    assert dialogue.send(b"Subject: x\r\n\r\n..dot\r\n.\r\n") == ACCEPTED
    assert dialogue.messages == [("a@b.test", ["c@d.test"], b"Subject: x\r\n\r\n.dot\r\n")]


def test_ehlo_names_what_is_offered() -> None:
    replies = Dialogue(starttls=True, clear_login=True).send(b"EHLO c.test\r\n")
    assert replies == (
        b"250-mx.test\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n"
        b"250-ENHANCEDSTATUSCODES\r\n250-SIZE 36700160\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n"
    )


def test_auth_is_offered_over_tls_or_where_a_login_may_be_in_clear() -> None:
    assert b"AUTH" not in Dialogue(starttls=True).send(b"EHLO c.test\r\n")
    assert b"AUTH" in Dialogue(secure=True).send(b"EHLO c.test\r\n")
    assert b"STARTTLS" not in Dialogue(secure=True, starttls=True).send(b"EHLO c.test\r\n")


def test_helo_offers_nothing() -> None:
    dialogue = Dialogue()
    assert dialogue.send(b"HELO c.test\r\n") == b"250 mx.test\r\n"
    assert not dialogue.machine.is_extended


@pytest.mark.parametrize("name", [b"", b" ", b"a b", b"a\x22b", b"(a)", b"<a>", b"a" * 256, b"a;b"])
def test_a_bad_helo_name_is_refused(name: bytes) -> None:
    dialogue = Dialogue()
    assert codes(dialogue.send(b"EHLO " + name + b"\r\n")) == [501]
    assert dialogue.machine.state is State.CONNECTED


@pytest.mark.parametrize("name", [b"c.test", b"[192.0.2.1]", b"[IPv6:2001:db8::1]", b"MY_PC", b"localhost"])
def test_names_of_the_wild_are_taken(name: bytes) -> None:
    dialogue = Dialogue()
    assert codes(dialogue.send(b"EHLO " + name + b"\r\n")) == [250]
    assert dialogue.machine.helo == name.decode()


def test_commands_have_no_case() -> None:
    dialogue = Dialogue()
    assert codes(dialogue.send(b"ehlo c.test\r\nmail from:<a@b.test>\r\nRcpt To:<c@d.test>\r\ndata\r\n")) == [
        250,
        250,
        250,
        354,
    ]


@pytest.mark.parametrize("verb", [b"EXPN x", b"ETRN x", b"TURN", b"SEND FROM:<a@b.test>", b"SAML x", b"BURL x LAST"])
def test_known_commands_that_are_not_served_get_502(verb: bytes) -> None:
    dialogue = ready()
    assert codes(dialogue.send(verb + b"\r\nNOOP\r\n")) == [502, 250]


@pytest.mark.parametrize(
    "verb", [b"FOO", b"", b"MAILFROM:<a@b.test>", b"DATAX", b"E", b"RCPT\tTO:<a@b.test>", b" NOOP"]
)
def test_unknown_commands_get_500(verb: bytes) -> None:
    dialogue = ready()
    assert codes(dialogue.send(verb + b"\r\nNOOP\r\n")) == [500, 250]


@pytest.mark.parametrize("verb", [b"GET / HTTP/1.1", b"POST / HTTP/1.1", b"post /", b"CONNECT a.test:25 HTTP/1.1"])
def test_http_ends_the_connection(verb: bytes) -> None:
    dialogue = Dialogue()
    body = verb + b"\r\nHost: x\r\n\r\nEHLO c.test\r\nMAIL FROM:<a@b.test>\r\n"
    assert codes(dialogue.send(body)) == [554]
    assert dialogue.machine.is_finished


@pytest.mark.parametrize("hello", [b"\x16\x03\x01\x02\x00\x01", b"\x16", b"\x16\x03\x01\x00\x0aEHLO c.test\r\n"])
def test_a_tls_client_hello_ends_the_connection(hello: bytes) -> None:
    dialogue = Dialogue(starttls=True)
    assert codes(dialogue.send(hello)) == [554]
    assert dialogue.machine.is_finished


@pytest.mark.parametrize("line", [b"DATA now", b"RSET x", b"QUIT x"])
def test_commands_without_argument_take_none(line: bytes) -> None:
    dialogue = ready()
    dialogue.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n")
    assert codes(dialogue.send(line + b"\r\n")) == [501]
    assert dialogue.machine.state is State.RCPT


def test_vrfy_tells_nothing_and_help_lists_the_commands() -> None:
    dialogue = ready()
    assert codes(dialogue.send(b"VRFY a@b.test\r\nHELP\r\nNOOP x\r\n")) == [252, 214, 250]


def test_rset_forgets_the_transaction() -> None:
    dialogue = ready()
    dialogue.send(b"MAIL FROM:<a@b.test> BODY=8BITMIME\r\nRCPT TO:<c@d.test>\r\nRSET\r\n")
    assert codes(dialogue.send(b"RCPT TO:<c@d.test>\r\nDATA\r\n")) == [503, 503]
    dialogue.send(b"MAIL FROM:<e@f.test>\r\nRCPT TO:<g@h.test>\r\nDATA\r\n")
    dialogue.send(b"x\r\n.\r\n")
    assert dialogue.messages == [("e@f.test", ["g@h.test"], b"x\r\n")]
    assert not dialogue.envelopes[0].eight_bit


def test_data_without_a_recipient_that_was_taken_is_refused() -> None:
    dialogue = ready()
    dialogue.refused_paths = {"c@d.test"}
    assert codes(dialogue.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")) == [250, 550, 554]


def test_a_refused_mail_begins_no_transaction() -> None:
    dialogue = ready()
    dialogue.refused_paths = {"a@b.test"}
    assert codes(dialogue.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")) == [550, 503, 503]


def test_quit_ends_it_and_what_follows_is_not_read() -> None:
    dialogue = ready()
    assert codes(dialogue.send(b"QUIT\r\nNOOP\r\n")) == [221]
    assert dialogue.machine.is_finished
    assert dialogue.send(b"NOOP\r\n") == b""


def test_an_unfinished_message_is_nothing() -> None:
    dialogue = ready()
    dialogue.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nhalf a message\r\n")
    dialogue.machine.receive_eof()
    assert dialogue.turn() == b""
    assert dialogue.machine.is_finished
    assert dialogue.messages == []


def test_the_driver_must_answer_before_the_next_event() -> None:
    dialogue = ready()
    dialogue.machine.receive(b"MAIL FROM:<a@b.test>\r\nNOOP\r\n")
    assert dialogue.machine.next_event() is not None
    with pytest.raises(LocalProtocolError):
        dialogue.machine.next_event()
    dialogue.machine.accept()
    with pytest.raises(LocalProtocolError):
        dialogue.machine.accept()
    with pytest.raises(LocalProtocolError):
        dialogue.machine.refuse(550, "5.7.1", "no")


def test_a_reason_cannot_break_the_reply() -> None:
    dialogue = ready()
    dialogue.machine.receive(b"MAIL FROM:<a@b.test>\r\n")
    dialogue.machine.next_event()
    dialogue.machine.refuse(550, "5.7.1", "é\r\n250 2.0.0 Ok" + "x" * 600)
    reply = dialogue.machine.data_to_send()
    assert reply.startswith(b"550 5.7.1 ???250 2.0.0 Ok")
    assert reply.count(b"\n") == 1
    assert len(reply) <= 512
