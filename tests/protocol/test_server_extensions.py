"""SMTPUTF8, 8BITMIME and DSN: what MAIL and RCPT may say, and what of it reaches the envelope."""

from __future__ import annotations

import pytest

from postroom.model.envelope import DsnRequest, Envelope
from postroom.protocol.smtp.server import ServerLimits
from tests.submission_door import Dialogue, codes, ready


def envelope(*lines: str) -> Envelope:
    """Of a message begun with `lines`, every one of which is taken."""
    dialogue = ready()
    for line in lines:
        assert codes(dialogue.send(line.encode() + b"\r\n")) == [250], line
    dialogue.send(b"DATA\r\nx: y\r\n.\r\n")
    (found,) = dialogue.envelopes
    return found


def test_a_plain_transaction_asks_for_nothing() -> None:
    assert envelope("MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>") == Envelope("a@b.test", ("c@d.test",))


@pytest.mark.parametrize(("body", "eight_bit"), [("BODY=7BIT", False), ("BODY=8bitmime", True), ("", False)])
def test_8bitmime_is_declared(body: str, eight_bit: bool) -> None:
    assert envelope(f"MAIL FROM:<a@b.test> {body}", "RCPT TO:<c@d.test>").eight_bit is eight_bit


def test_binarymime_is_not_offered_and_refused() -> None:
    dialogue = ready()
    assert b"BINARYMIME" not in dialogue.send(b"EHLO c.test\r\n")
    assert codes(dialogue.send(b"MAIL FROM:<a@b.test> BODY=BINARYMIME\r\n")) == [501]


def test_utf8_addresses_in_a_transaction_that_declared_it() -> None:
    found = envelope("MAIL FROM:<é@bücher.test> SMTPUTF8", "RCPT TO:<用户@例え.テスト>", "RCPT TO:<c@d.test>")
    assert found.smtputf8
    assert found.reverse_path == "é@xn--bcher-kva.test"
    assert found.recipients == ("用户@xn--r8jz45g.xn--zckzah", "c@d.test")


def test_smtputf8_may_be_declared_for_the_header_alone() -> None:
    assert envelope("MAIL FROM:<a@b.test> SMTPUTF8", "RCPT TO:<c@d.test>").smtputf8
    assert envelope("MAIL FROM:<> SMTPUTF8", "RCPT TO:<c@d.test>").smtputf8


def test_utf8_addresses_elsewhere_are_refused() -> None:
    dialogue = ready()
    assert dialogue.send("MAIL FROM:<é@b.test>\r\n".encode()).startswith(b"553 5.6.7 ")
    dialogue.send(b"MAIL FROM:<a@b.test>\r\n")
    assert dialogue.send("RCPT TO:<é@b.test>\r\n".encode()).startswith(b"553 5.6.7 ")
    assert dialogue.send("RCPT TO:<a@bücher.test>\r\n".encode()).startswith(b"553 5.6.7 ")
    assert dialogue.send("RCPT TO:<a@b.test> ORCPT=utf-8;é@b.test\r\n".encode()).startswith(b"553 5.6.7 ")
    assert codes(dialogue.send(b"RCPT TO:<c@d.test>\r\nDATA\r\n")) == [250, 354]


def test_smtputf8_of_one_transaction_is_not_that_of_the_next() -> None:
    dialogue = ready()
    dialogue.send(b"MAIL FROM:<a@b.test> SMTPUTF8\r\nRSET\r\nMAIL FROM:<a@b.test>\r\n")
    assert codes(dialogue.send("RCPT TO:<é@b.test>\r\n".encode())) == [553]


@pytest.mark.parametrize("line", ["VRFY é", "VRFY é SMTPUTF8", "VRFY a SMTPUTF8"])
def test_vrfy_takes_utf8(line: str) -> None:
    assert codes(ready().send(line.encode() + b"\r\n")) == [252]


def test_expn_in_utf8_is_not_implemented_either() -> None:
    assert codes(ready().send("EXPN é SMTPUTF8\r\n".encode())) == [502]


def test_what_dsn_asks_for_is_kept_by_recipient() -> None:
    found = envelope(
        "MAIL FROM:<a@b.test> RET=hdrs ENVID=QQ+2B1",
        "RCPT TO:<plain@d.test>",
        "RCPT TO:<never@d.test> NOTIFY=NEVER",
        "RCPT TO:<all@d.test> ORCPT=rfc822;Old@d.test NOTIFY=delay,failure,success",
    )
    assert found.dsn == DsnRequest(
        "HDRS", "QQ+2B1", ("", "NEVER", "SUCCESS,FAILURE,DELAY"), ("", "", "rfc822;Old@d.test")
    )


def test_dsn_of_the_message_alone() -> None:
    assert envelope("MAIL FROM:<a@b.test> RET=FULL", "RCPT TO:<c@d.test>").dsn == DsnRequest("FULL", "", ("",), ("",))


def test_orcpt_in_utf8_becomes_its_seven_bit_form() -> None:
    found = envelope("MAIL FROM:<a@b.test> SMTPUTF8", "RCPT TO:<c@d.test> ORCPT=utf-8;é@d.test")
    assert found.dsn is not None
    assert found.dsn.orcpt == ("utf-8;\\x{E9}@d.test",)


def test_dsn_of_a_refused_recipient_is_nobodys() -> None:
    dialogue = ready()
    dialogue.refused_paths = {"no@d.test"}
    dialogue.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<no@d.test> NOTIFY=NEVER\r\nRCPT TO:<yes@d.test>\r\n")
    dialogue.send(b"RCPT TO:<no@d.test> NOTIFY=SUCCESS\r\nDATA\r\nx\r\n.\r\n")
    assert dialogue.envelopes == [Envelope("a@b.test", ("yes@d.test",))]


def test_dsn_of_one_transaction_is_not_that_of_the_next() -> None:
    dialogue = ready()
    dialogue.send(b"MAIL FROM:<a@b.test> ENVID=x\r\nRCPT TO:<c@d.test> NOTIFY=NEVER\r\nDATA\r\nx\r\n.\r\n")
    dialogue.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nx\r\n.\r\n")
    assert [one.dsn is None for one in dialogue.envelopes] == [False, True]


@pytest.mark.parametrize(
    "line",
    [
        "MAIL FROM:<a@b.test> RET=ALL",
        "MAIL FROM:<a@b.test> ENVID=a+0D+0A",
        "MAIL FROM:<a@b.test> ENVID=x ENVID=x",
        "RCPT TO:<c@d.test> NOTIFY=NEVER,DELAY",
        "RCPT TO:<c@d.test> NOTIFY=DELAY NOTIFY=DELAY",
        "RCPT TO:<c@d.test> ORCPT=c@d.test",
    ],
)
def test_bad_dsn_parameters_are_refused(line: str) -> None:
    dialogue = ready()
    if line.startswith("RCPT"):
        dialogue.send(b"MAIL FROM:<a@b.test>\r\n")
    assert dialogue.send(line.encode() + b"\r\n").startswith(b"501 5.5.4 ")


@pytest.mark.parametrize("line", ["MAIL FROM:<a@b.test> BY=1;R", "RCPT TO:<c@d.test> RET=FULL", "RCPT TO:<c@d.test> X"])
def test_parameters_that_nobody_offered_are_refused_by_name(line: str) -> None:
    dialogue = ready()
    if line.startswith("RCPT"):
        dialogue.send(b"MAIL FROM:<a@b.test>\r\n")
    name = line.split()[-1].partition("=")[0]
    assert dialogue.send(line.encode() + b"\r\n") == f"555 5.5.4 Parameter {name} is not offered\r\n".encode()


@pytest.mark.parametrize("parameter", ["SIZE=10", "BODY=8BITMIME", "SMTPUTF8", "RET=FULL"])
def test_parameters_after_helo_are_refused(parameter: str) -> None:
    dialogue = Dialogue()
    dialogue.send(b"HELO c.test\r\n")
    refused = b"555 5.5.4 Parameters need EHLO\r\n"
    assert dialogue.send(f"MAIL FROM:<a@b.test> {parameter}\r\n".encode()) == refused
    assert codes(dialogue.send(b"MAIL FROM:<a@b.test>\r\n")) == [250]
    assert dialogue.send(b"RCPT TO:<c@d.test> NOTIFY=NEVER\r\n") == refused
    assert codes(dialogue.send(b"RCPT TO:<c@d.test>\r\n")) == [250]


@pytest.mark.parametrize(
    "size", ["\u0661\u0662", "\uff11", "1_0", "+1", "-1", "1.0", "1e3", "0x10", "", " 1", "9" * 21, "\u00b2"]
)
def test_a_size_that_is_not_ascii_digits_is_refused(size: str) -> None:
    said = ready().send(f"MAIL FROM:<a@b.test> SMTPUTF8 SIZE={size}\r\n".encode())
    assert said.startswith(b"501 5.5.4 ")


def test_a_size_of_twenty_digits_is_too_large_and_no_more() -> None:
    dialogue = ready(limits=ServerLimits(max_size_bytes=1000))
    assert codes(dialogue.send(b"MAIL FROM:<a@b.test> SIZE=" + b"9" * 20 + b"\r\n")) == [552]
    assert codes(dialogue.send(b"MAIL FROM:<a@b.test> SIZE=" + b"0" * 19 + b"9\r\n")) == [250]
