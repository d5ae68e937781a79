"""What is kept of a dialogue: enough to see what went wrong, no content, no secret, and never too much."""

from __future__ import annotations

import base64

import pytest

from postroom.model.envelope import Envelope
from postroom.model.reply import Reply
from postroom.net.transcript import HIDDEN, MAX_TRANSCRIPT_CHARACTERS, Transcript
from postroom.protocol.smtp.client import SmtpClient
from postroom.protocol.smtp.transaction import MailTransaction
from tests.protocol.far_side import FarSide, events, greeted

PASSWORD = "geheim (hunter2) "
RESPONSE = base64.b64encode(f"\0erp\0{PASSWORD}".encode()).decode()


def logged_in() -> Transcript:
    """A dialogue with a login."""
    said = Transcript()
    said.hide(PASSWORD)
    said.sent(f"AUTH PLAIN {RESPONSE}\r\n".encode())
    return said


@pytest.mark.parametrize(
    "echo",
    [
        f"unknown command AUTH PLAIN {RESPONSE}",
        f"unknown command 'AUTH PLAIN {RESPONSE[:-7]}'",
        f"wrong password {PASSWORD} for erp",
        f"what is {base64.b64encode(PASSWORD.encode()).decode()}",
    ],
)
def test_a_secret_that_the_server_repeats_is_hidden(echo: str) -> None:
    said = logged_in()
    refused = said.clean(Reply(535, ("5.7.8", echo), "5.7.8", "AUTH"))
    said.received(Reply(535, (echo,), "5.7.8", "AUTH"))
    for text in (refused.text, said.text(), said.without_secrets(echo)):
        assert HIDDEN in text
        assert PASSWORD not in text and RESPONSE[:-7] not in text and "hunter2" not in text
    assert (refused.code, refused.enhanced, refused.command) == (535, "5.7.8", "AUTH")


def test_a_secret_that_a_relay_repeats_to_an_envelope_is_hidden() -> None:
    client = greeted(FarSide())
    one = MailTransaction(Envelope("a@x.test", ("b@y.test",)), 5)
    client.begin(one)
    client.receive(f"550 you said {RESPONSE}\r\n".encode())
    events(client)
    assert RESPONSE not in logged_in().text(one, pipelined=True)


def test_what_was_not_secret_stays() -> None:
    said = logged_in()
    said.received(Reply(235, ("welcome, erp",), "2.7.0", "AUTH"))
    said.sent_secret(b"*\r\n")
    said.received(Reply(250, ("2 * 3",)))
    assert said.text() == "C: AUTH PLAIN [hidden]\nS: 235 2.7.0 welcome, erp\nC: [hidden]\nS: 250 2 * 3"
    reply = Reply(250, ("ok",))
    assert Transcript().clean(reply) is reply


def test_of_a_long_dialogue_the_beginning_and_the_end_are_kept() -> None:
    said = Transcript()
    for n in range(5000):
        said.sent(b"NOOP %04d\r\n" % n)
    said.note("the end")
    text = said.text()
    assert len(text) <= MAX_TRANSCRIPT_CHARACTERS
    assert len(text) > MAX_TRANSCRIPT_CHARACTERS * 0.9
    lines = text.split("\n")
    assert (lines[0], lines[-2], lines[-1]) == ("C: NOOP 0000", "C: NOOP 4999", "-- the end")
    assert sum("lines left out" in line for line in lines) == 1


def test_replies_of_many_long_lines_to_many_recipients_stay_within_the_limit() -> None:
    client = greeted(FarSide())
    one = MailTransaction(Envelope("a@x.test", tuple(f"{n}@y.test" for n in range(300))), 5)
    client.begin(one)
    said = b"".join(b"550-%s\r\n" % (b"x" * 900) for _ in range(50)) + b"550 no\r\n"
    client.receive(b"250 ok\r\n" + said * 300 + b"554 nobody\r\n")
    events(client)
    text = Transcript().text(one, pipelined=True)
    assert len(text) <= MAX_TRANSCRIPT_CHARACTERS
    assert text.startswith("C: MAIL FROM:<a@x.test>") and text.endswith("C: DATA\nS: 554 nobody")


@pytest.mark.parametrize("pipelining", [True, False])
def test_only_what_was_sent_is_told(pipelining: bool) -> None:
    client = greeted(FarSide(pipelining=pipelining))
    one = MailTransaction(Envelope("a@x.test", ("b@y.test", "c@y.test")), 5)
    client.begin(one)
    client.receive(b"250 ok\r\n")
    events(client)
    client.give_up("gone", "network")
    told = Transcript().text(one, pipelined=pipelining)
    behind = ["C: RCPT TO:<c@y.test>", "C: DATA"] if pipelining else []
    assert told.split("\n") == [
        "C: MAIL FROM:<a@x.test> SIZE=5", "S: 250 ok", "C: RCPT TO:<b@y.test>", *behind, "-- gone",
    ]  # fmt: skip


def test_a_transaction_abandoned_before_data_tells_no_command_that_was_not_sent() -> None:
    client = greeted(FarSide(pipelining=False))
    one = MailTransaction(Envelope("a@x.test", ("b@y.test",)), 5)
    client.begin(one)
    client.receive(b"550 not you\r\n")
    events(client)
    assert Transcript().text(one) == "C: MAIL FROM:<a@x.test> SIZE=5\nS: 550 not you"


def test_what_waited_behind_another_tells_nothing_but_why() -> None:
    client = greeted(FarSide())
    client.begin(MailTransaction(Envelope("a@x.test", ("b@y.test",)), 5))
    waiting = MailTransaction(Envelope("c@x.test", ("d@y.test",)), 5)
    client.begin(waiting)
    client.give_up("gone", "network")
    assert Transcript().text(waiting, pipelined=True) == "-- gone"


def test_content_is_told_by_its_size_alone() -> None:
    client: SmtpClient = greeted(FarSide())
    whole, part = (MailTransaction(Envelope("a@x.test", ("b@y.test",)), 17) for _ in range(2))
    for one in (whole, part):
        client.begin(one)
        client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
        events(client)
        client.begin_content()
        client.send_chunk(b"Subject: for your eyes\r\n")
        if one is whole:
            client.end_content()
        client.receive(b"554 no\r\n")
        events(client)
    assert Transcript().text(whole).endswith("S: 354 go\nC: [17 octets of content]\nC: .\nS: 554 no")
    assert Transcript().text(part).endswith("S: 354 go\nC: [a part of the content]\nS: 554 no")
