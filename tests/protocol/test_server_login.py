"""AUTH PLAIN and LOGIN (RFC 4954): who logs in, and how an exchange ends."""

from __future__ import annotations

from base64 import b64encode

import pytest

from postroom.protocol.smtp.server import State
from tests.submission_door import Dialogue, codes, ready


def encoded(text: bytes) -> bytes:
    return b64encode(text)


def test_plain_with_an_initial_response() -> None:
    dialogue = ready(secure=True)
    assert (
        dialogue.send(b"AUTH PLAIN " + encoded(b"\0erp\0right") + b"\r\n") == b"235 2.7.0 Authentication successful\r\n"
    )
    assert dialogue.logins == [("erp", "right")]
    assert dialogue.machine.logged_in


def test_plain_after_an_empty_challenge() -> None:
    dialogue = ready(secure=True)
    assert dialogue.send(b"auth plain\r\n") == b"334 \r\n"
    assert codes(dialogue.send(encoded(b"erp\0erp\0right") + b"\r\n")) == [235]


def test_login() -> None:
    dialogue = ready(secure=True)
    assert dialogue.send(b"AUTH LOGIN\r\n") == b"334 VXNlcm5hbWU6\r\n"
    assert dialogue.send(encoded(b"erp") + b"\r\n") == b"334 UGFzc3dvcmQ6\r\n"
    assert codes(dialogue.send(encoded("pässwörd".encode()) + b"\r\n")) == [535]
    assert dialogue.logins == [("erp", "pässwörd")]


def test_login_with_the_name_in_the_command() -> None:
    dialogue = ready(secure=True)
    assert dialogue.send(b"AUTH LOGIN " + encoded(b"erp") + b"\r\n") == b"334 UGFzc3dvcmQ6\r\n"
    assert codes(dialogue.send(encoded(b"right") + b"\r\n")) == [235]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (b"AUTH LOGIN\r\n*\r\n", [334, 501]),
        (b"AUTH PLAIN !!!\r\n", [501]),
        (b"AUTH PLAIN AGVycAByaWdodA\r\n", [501]),
        (b"AUTH PLAIN " + encoded(b"no separators") + b"\r\n", [501]),
        (b"AUTH PLAIN " + encoded(b"\0erp\0\xff\xfe") + b"\r\n", [501]),
        (b"AUTH PLAIN =\r\n", [501]),
        (b"AUTH LOGIN\r\nQUIT\r\n", [334, 334]),
        (b"AUTH LOGIN\r\nnot base64!\r\n", [334, 501]),
        (b"AUTH LOGIN\r\n\xff\r\n", [334, 500]),
        (b"AUTH LOGIN\r\nMAIL \xc3\xa9\r\n", [334, 500]),
        (b"AUTH LOGIN\r\nZXJw\n", [334, 500]),
        (b"AUTH CRAM-MD5\r\n", [504]),
        (b"AUTH\r\n", [501]),
        (b"AUTH PLAIN " + encoded(b"admin\0erp\0right") + b"\r\n", [535]),
    ],
)
def test_what_is_no_login_is_refused(lines: bytes, said: list[int]) -> None:
    dialogue = ready(secure=True)
    assert codes(dialogue.send(lines)) == said
    assert dialogue.logins == []
    assert not dialogue.machine.logged_in


def test_after_a_broken_exchange_commands_are_read_again() -> None:
    dialogue = ready(secure=True)
    assert codes(dialogue.send(b"AUTH LOGIN\r\n*\r\nNOOP\r\n")) == [334, 501, 250]
    assert dialogue.machine.state is State.READY


def test_login_needs_encryption_where_it_is_not_offered_in_clear() -> None:
    dialogue = ready(starttls=True)
    assert dialogue.send(b"AUTH PLAIN " + encoded(b"\0erp\0right") + b"\r\n").startswith(b"538 5.7.11 ")
    assert dialogue.logins == []


def test_one_login_a_connection() -> None:
    dialogue = ready(secure=True)
    line = b"AUTH PLAIN " + encoded(b"\0erp\0right") + b"\r\n"
    assert codes(dialogue.send(line + line)) == [235, 503]


def test_no_login_before_ehlo_nor_within_a_transaction() -> None:
    assert codes(Dialogue(secure=True).send(b"AUTH LOGIN\r\n")) == [503]
    assert codes(ready(secure=True).send(b"MAIL FROM:<a@b.test>\r\nAUTH LOGIN\r\n")) == [250, 503]


def test_too_many_failed_logins_end_the_connection() -> None:
    dialogue = ready(secure=True)
    said = dialogue.send((b"AUTH PLAIN " + encoded(b"\0erp\0wrong") + b"\r\n") * 12)
    assert codes(said) == [535] * 9 + [421]
    assert said.endswith(b"421 4.7.0 Too many failed logins\r\n")
    assert dialogue.machine.is_finished
    assert len(dialogue.logins) == 10


def test_failed_logins_stay_counted_over_starttls() -> None:
    dialogue = ready(starttls=True, clear_login=True)
    line = b"AUTH PLAIN " + encoded(b"\0erp\0wrong") + b"\r\n"
    dialogue.send(line * 9 + b"STARTTLS\r\n")
    dialogue.machine.tls_started()
    dialogue.send(b"EHLO c.test\r\n")
    assert codes(dialogue.send(line)) == [421]


def test_a_password_is_not_shown() -> None:
    dialogue = ready(secure=True)
    dialogue.machine.receive(b"AUTH PLAIN " + encoded(b"\0erp\0secret") + b"\r\n")
    assert "secret" not in repr(dialogue.machine.next_event())
