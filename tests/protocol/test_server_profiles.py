"""The profiles of a listener at the machine: what `devices` takes, a strict one refuses and names the setting for."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from postroom.protocol.smtp.server import State
from tests.submission_door import ACCEPTED, Dialogue, codes, ready

DEVICES: dict[str, Any] = {"clear_login": True, "normalise_bare_lf": True, "any_helo": True}
BEGIN = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"


@pytest.mark.parametrize(
    ("greeting", "name"),
    [
        (b"EHLO scanner (2nd floor)", "scanner__2nd_floor_"),
        (b"HELO a b", "a_b"),
        (b"EHLO", ""),
        (b"HELO ", ""),
        (b"EHLO \x22;<x>,", "___x__"),
        ("HELO BÜRO".encode("latin-1"), "B_RO"),
        ("EHLO büro".encode(), "b__ro"),
        (b"EHLO [192.0.2.1]", "[192.0.2.1]"),
        (b"EHLO [192.0.2.1", "_192.0.2.1"),
        (b"EHLO " + b"a" * 300, "a" * 255),
        (b"EHLO scanner.test", "scanner.test"),
    ],
)
def test_devices_may_call_themselves_anything(greeting: bytes, name: str) -> None:
    dialogue = Dialogue(**DEVICES)
    assert codes(dialogue.send(greeting + b"\r\n")) == [250]
    assert dialogue.machine.helo == name


def test_devices_need_no_greeting_at_all() -> None:
    dialogue = Dialogue(**DEVICES)
    assert dialogue.send(BEGIN + b"DATA\r\nx: y\r\n.\r\n").endswith(ACCEPTED)
    assert not dialogue.machine.is_extended


@pytest.mark.parametrize("octet", [b"\x00", b"\x07", b"\x1b", b"\x7f"])
def test_a_control_in_a_name_is_refused_to_devices_too(octet: bytes) -> None:
    assert codes(Dialogue(**DEVICES).send(b"EHLO a" + octet + b"\r\n")) == [500]


@pytest.mark.parametrize("line", [b"NOOP \xe9\r\n", b"MAIL FROM:<\xe9@b.test>\r\n", b"EHLO a\n", b"EHLO a\rb\r\n"])
def test_devices_are_let_off_nothing_else_in_commands(line: bytes) -> None:
    assert codes(Dialogue(**DEVICES).send(line)) == [500]


def test_parameters_after_helo_are_taken_from_devices() -> None:
    dialogue = Dialogue(**DEVICES)
    assert codes(dialogue.send(b"HELO x\r\nMAIL FROM:<a@b.test> SIZE=10 BODY=8BITMIME\r\n")) == [250, 250]


def test_after_a_handshake_devices_are_as_at_the_beginning() -> None:
    dialogue = Dialogue(starttls=True, **DEVICES)
    dialogue.send(b"STARTTLS\r\n")
    dialogue.machine.tls_started()
    assert dialogue.machine.state is State.READY
    assert codes(dialogue.send(BEGIN)) == [250, 250]


def test_content_of_devices_gets_its_line_ends_and_ends_as_everywhere() -> None:
    dialogue = Dialogue(**DEVICES)
    dialogue.send(BEGIN + b"DATA\r\n")
    assert dialogue.send(b"Subject: x\n\nline\n.\nline\n.\r\nRSET\r\n") == b""
    assert dialogue.send(b".\r\n") == ACCEPTED
    assert dialogue.messages[0][2] == b"Subject: x\r\n\r\nline\r\n.\r\nline\r\n.\r\nRSET\r\n"


def test_a_bare_cr_is_refused_to_devices_too() -> None:
    dialogue = Dialogue(**DEVICES)
    dialogue.send(BEGIN + b"DATA\r\n")
    assert dialogue.send(b"a\rb\r\n.\r\n") == b"554 5.6.0 Bare CR in the content\r\n"


def test_a_bare_lf_in_chunks_of_devices_gets_its_cr() -> None:
    dialogue = Dialogue(**DEVICES)
    assert dialogue.send(BEGIN + b"BDAT 4\r\na\n\nbBDAT 2 LAST\r\n\nc").endswith(ACCEPTED)
    assert dialogue.messages[0][2] == b"a\r\n\r\nb\r\nc\r\n"


def scanner(dialogue: Dialogue) -> bytes:
    """What a scanner in the wild does: a login in clear, bare LF, neither Date nor Message-ID."""
    said = dialogue.send(b"EHLO scanner (1)\r\n")
    said += dialogue.send(b"AUTH LOGIN\r\n")
    if said.endswith(b"334 VXNlcm5hbWU6\r\n"):
        said += dialogue.send(b64encode(b"erp") + b"\r\n") + dialogue.send(b64encode(b"right") + b"\r\n")
    said += dialogue.send(b"MAIL FROM: <a@b.test>\r\n") + dialogue.send(b"RCPT TO: <c@d.test>\r\n")
    said += dialogue.send(b"DATA\r\n")
    if b"354" in said:
        said += dialogue.send(b"From: a@b.test\nTo: c@d.test\nSubject: scan\n\nThe scan.\n\r\n.\r\n")
    return said + dialogue.send(b"QUIT\r\n")


def test_a_scanner_is_served_by_a_listener_for_devices() -> None:
    dialogue = Dialogue(**DEVICES)
    assert codes(scanner(dialogue)) == [250, 334, 334, 235, 250, 250, 354, 250, 221]
    assert dialogue.logins == [("erp", "right")]
    content = b"From: a@b.test\r\nTo: c@d.test\r\nSubject: scan\r\n\r\nThe scan.\r\n\r\n"
    assert dialogue.messages == [("a@b.test", ["c@d.test"], content)]


def test_a_scanner_is_refused_by_a_strict_listener_in_words_that_name_the_settings() -> None:
    assert codes(scanner(Dialogue())) == [501, 503, 503, 503, 503, 221]
    dialogue = Dialogue()
    assert dialogue.send(b"EHLO scanner (1)\r\n") == (
        b'501 5.5.4 Syntax: EHLO hostname (listener setting profile = "devices" takes any name or none)\r\n'
    )
    dialogue.send(b"EHLO scanner\r\n")
    assert dialogue.send(b"AUTH LOGIN\r\n") == (
        b'538 5.7.11 Encryption is required to log in (listener settings profile = "devices" and '
        b"allow_clear_login = true take a login in clear)\r\n"
    )
    assert codes(dialogue.send(BEGIN + b"DATA\r\n")) == [250, 250, 354]
    assert dialogue.send(b"Subject: scan\n\nThe scan.\n\r\n.\r\n") == (
        b'554 5.6.0 Bare LF in the content; lines end with CRLF (listener setting profile = "devices" takes it)\r\n'
    )
    assert dialogue.logins == []
    assert dialogue.messages == []


def test_a_login_in_clear_is_offered_to_devices_only_where_it_is_allowed() -> None:
    options = {**DEVICES, "clear_login": False}
    assert b"AUTH" not in Dialogue(**options).send(b"EHLO x\r\n")
    refused = ready(**options).send(b"AUTH LOGIN\r\n")
    assert refused.startswith(b"538 5.7.11 ")
    assert b"allow_clear_login" in refused
