"""Signatures judged by OpenDKIM: the machine's own, and of mail that went through a gateway to a relay."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postroom.mime.body_hash import BodyHash
from postroom.mime.dkim import dns_record, signatures
from postroom.mime.head import edit, split
from tests.conftest import Served
from tests.dkim_judge import BOTH, verified_by
from tests.interop.conftest import AioRelay, add_relay
from tests.interop.opendkim import OpenDkim

RECORDS = {record.name: record.value for record in map(dns_record, BOTH)}
PASSES = {"one": "pass rsa-sha256", "two": "pass ed25519-sha256"}

MESSAGES = {
    "plain": b"From: a@example.org\r\nTo: b@x.test\r\nSubject: s\r\n\r\nText.\r\n",
    "odd white space": (
        b"From:a@example.org\t\r\nTO :\r\n\t b@x.test,\r\n   c@x.test\r\nSubject :s  t\r\n\r\n a \t b \r\n"
    ),
    "no body": b"From: a@example.org\r\nSubject: s\r\n\r\n",
    "empty lines": b"From: a@example.org\r\n\r\n\r\n\r\nText.\r\n\r\n\r\n",
    "utf-8": "From: jörg@example.org\r\nSubject: grüße\r\n\r\ngrüße\r\n".encode(),
    "repeated": b"To: x@x.test\r\nFrom: a@example.org\r\nTo: b@x.test\r\nCc: c@x.test\r\nCc: d@x.test\r\n\r\n.\r\n",
}


@pytest.fixture
def opendkim(peer: Callable[[str], Path], tmp_path: Path) -> OpenDkim:
    return OpenDkim(peer("opendkim"), tmp_path)


def signed(message: bytes) -> bytes:
    head, body = split(message)
    hashed = BodyHash()
    hashed.feed(body)
    return edit(head, prepend=signatures(head, hashed.digest(), BOTH, datetime.now(UTC))) + body


@pytest.mark.parametrize("name", MESSAGES)
def test_opendkim_verifies_both_signatures(opendkim: OpenDkim, name: str) -> None:
    assert opendkim.verdicts(signed(MESSAGES[name]), RECORDS) == PASSES


def test_opendkim_refuses_what_was_altered(opendkim: OpenDkim) -> None:
    altered = signed(MESSAGES["plain"]).replace(b"Subject: s", b"Subject: t")
    assert opendkim.verdicts(altered, RECORDS) == {"one": "fail rsa-sha256", "two": "fail ed25519-sha256"}


def test_mail_of_an_account_with_a_fixed_sender_is_signed_as_it_arrives(
    opendkim: OpenDkim, serve: Callable[..., Served], aiosmtpd_relay: Callable[..., AioRelay], tmp_path: Path
) -> None:
    relay = aiosmtpd_relay()
    served = serve()
    add_relay(served, relay.port, "--fixed-sender", "robot@example.org", "--fixed-sender-keeps-reply")
    command = ("accounts", "dkim", "relay", "--domain", "example.org", "--selector", "s1", "--key", "both", "--json")
    keys = json.loads(served.run(*command).stdout)["keys"]
    records = {key["record"]["name"]: key["record"]["value"] for key in keys}
    (tmp_path / "large").write_bytes(b"octets of a large attachment \x00\xff" * 20_000)
    message = ("--from", "Ann <ann@x.test>", "--to", "bob@y.test", "--subject", "grüße", "--text", "grüße\n\n\n")
    served.run("send", *message)
    served.run("send", *message, "--attach", str(tmp_path / "large"))
    for envelope in relay.arrivals.wait(2):
        assert envelope.mail_from == "robot@example.org"
        content = envelope.content
        assert isinstance(content, bytes)
        assert b"\r\nFrom: Ann <robot@example.org>\r\nReply-To: Ann <ann@x.test>\r\n" in content
        assert verified_by(records, content) == [True, True]
        verdicts = opendkim.verdicts(content, records)
        assert verdicts == {"s1": "pass rsa-sha256", "s1-ed25519": "pass ed25519-sha256"}
    shown = served.run("queue", "show", "last", "--content").stdout
    assert "From: Ann <ann@x.test>" in shown
    assert "DKIM-Signature" not in shown
