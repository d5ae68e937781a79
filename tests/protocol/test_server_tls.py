"""STARTTLS: nothing that came in clear lives on behind it."""

from __future__ import annotations

import pytest

from postroom.protocol.smtp import LocalProtocolError
from postroom.protocol.smtp.server import State
from tests.submission_door import codes, ready


def test_what_was_sent_in_clear_with_the_command_is_discarded() -> None:
    dialogue = ready(starttls=True)
    said = dialogue.send(b"STARTTLS\r\nEHLO evil\r\nMAIL FROM:<evil@b.test>\r\nRCPT TO:<c@d.test>\r\n")
    assert codes(said) == [220]
    assert dialogue.tls_asked
    assert dialogue.send(b"NOOP\r\n") == b""
    dialogue.machine.tls_started()
    assert dialogue.turn() == b""
    assert codes(dialogue.send(b"RCPT TO:<c@d.test>\r\n")) == [503]


def test_all_that_was_known_is_forgotten() -> None:
    dialogue = ready(starttls=True, clear_login=True)
    dialogue.send(b"AUTH PLAIN AGVycAByaWdodA==\r\nSTARTTLS\r\n")
    assert dialogue.machine.logged_in
    dialogue.machine.tls_started()
    assert (dialogue.machine.state, dialogue.machine.helo, dialogue.machine.logged_in) == (State.CONNECTED, "", False)
    assert codes(dialogue.send(b"MAIL FROM:<a@b.test>\r\n")) == [503]


def test_a_second_starttls_is_refused() -> None:
    dialogue = ready(starttls=True)
    dialogue.send(b"STARTTLS\r\n")
    dialogue.machine.tls_started()
    offered = dialogue.send(b"EHLO c.test\r\n")
    assert b"STARTTLS" not in offered
    assert codes(dialogue.send(b"STARTTLS\r\n")) == [503]
    assert dialogue.machine.state is State.READY


def test_starttls_that_is_not_offered_is_refused() -> None:
    dialogue = ready()
    assert codes(dialogue.send(b"STARTTLS\r\nNOOP\r\n")) == [502, 250]
    assert not dialogue.tls_asked


@pytest.mark.parametrize("before", [b"MAIL FROM:<a@b.test>\r\n", b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"])
def test_starttls_within_a_transaction_is_refused(before: bytes) -> None:
    dialogue = ready(starttls=True)
    assert codes(dialogue.send(before + b"STARTTLS\r\n"))[-1] == 503


def test_starttls_takes_no_argument() -> None:
    dialogue = ready(starttls=True)
    assert codes(dialogue.send(b"STARTTLS now\r\n")) == [501]


def test_starttls_waits_for_the_message_before_it() -> None:
    dialogue = ready(starttls=True, commits=False)
    dialogue.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")
    assert dialogue.send(b"x\r\n.\r\nSTARTTLS\r\n") == b""
    assert not dialogue.tls_asked
    assert codes(dialogue.commit()) == [250, 220]
    assert dialogue.tls_asked


def test_no_handshake_without_starttls() -> None:
    with pytest.raises(LocalProtocolError):
        ready().machine.tls_started()
