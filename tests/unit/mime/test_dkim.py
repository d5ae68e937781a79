"""DKIM signatures, judged by dkimpy."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from postroom.mime.body_hash import BodyHash
from postroom.mime.dkim import SigningKey, dns_record, load_key, signatures
from postroom.mime.head import edit, scan
from tests.dkim_judge import BOTH, ED25519, RSA, pem, verified

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HEAD = (
    b"Received: from a\r\n\tby b; date\r\n"
    b"From: Ann <ann@example.org>\r\n"
    b"to:  bob@example.net,\r\n\t carl@example.net  \r\n"
    b"Subject:\r\n  folded  subject\t \r\n"
    b"Date: Sun, 1 Mar 2026 12:00:00 +0000\r\n"
    b"Message-ID: <1@example.org>\r\n"
    b"List-Unsubscribe: <https://example.org/u>\r\n"
    b"\r\n"
)
BODY = b"Hello,  Bob. \r\n\r\n.dots\r\n\r\n\r\n"


def body_hash(body: bytes) -> bytes:
    hashed = BodyHash()
    hashed.feed(body)
    return hashed.digest()


def signed(head: bytes, body: bytes, keys: tuple[SigningKey, ...] = BOTH) -> bytes:
    return edit(head, prepend=signatures(head, body_hash(body), keys, NOW)) + body


def tag(message: bytes, name: str) -> str:
    """The value of a tag of the topmost signature, unfolded."""
    field = scan(message).first(b"dkim-signature") or b""
    found = re.search(rf"(?:^|;)\s*{name}=([^;]*)", field.decode())
    return re.sub(r"\s", "", found[1]) if found else ""


@pytest.mark.parametrize("keys", [(RSA,), (ED25519,), BOTH])
def test_dkimpy_verifies(keys: tuple[SigningKey, ...]) -> None:
    message = signed(HEAD, BODY, keys)
    assert verified(message) == [True] * len(keys)
    assert message.endswith(HEAD + BODY)
    assert message.startswith(b"DKIM-Signature: v=1; a=" + keys[0].algorithm.encode())


def test_dkimpy_refuses_another_head_body_or_key() -> None:
    message = signed(HEAD, BODY)
    for altered in (
        message.replace(b"Hello,", b"Hallo,"),
        message.replace(b"Ann <", b"Anna <"),
        message.replace(b"<1@", b"<2@"),
        message.replace(b"example.org/u", b"example.org/v"),
    ):
        assert altered != message
        assert verified(altered) == [False, False]
    other = SigningKey("example.org", "one", rsa.generate_private_key(65537, 2048))
    assert verified(message, (other, ED25519)) == [False, True]


@pytest.mark.parametrize("field", ["From", "Reply-To", "Subject", "Date", "To", "Cc", "Message-ID"])
def test_a_second_field_of_a_name_that_people_see_breaks_the_signature(field: str) -> None:
    message = signed(HEAD, BODY, (RSA,))
    added = f"{field}: evil@example.com\r\n".encode()
    assert verified(edit(message, prepend=added)) == [False]
    assert verified(edit(message, append=added)) == [False]


def test_what_a_relay_adds_leaves_it_whole() -> None:
    added = (
        b"Received: from x\r\n\tby y; z\r\nX-Relay: 1\r\nReturn-Path: <b@example.org>\r\nList-Id: <l.example.net>\r\n"
    )
    assert verified(edit(signed(HEAD, BODY), prepend=added)) == [True, True]


def test_tags() -> None:
    message = signed(HEAD, BODY, (RSA,))
    assert (tag(message, "d"), tag(message, "s"), tag(message, "c")) == ("example.org", "one", "relaxed/relaxed")
    assert tag(message, "t") == str(int(NOW.timestamp()))
    assert tag(message, "bh") == base64.b64encode(body_hash(BODY)).decode()
    assert tag(message, "h") == (
        "from:from:reply-to:subject:subject:date:date:to:to:cc:message-id:message-id:list-unsubscribe"
    )
    assert tag(message, "l") == tag(message, "x") == ""
    assert max(map(len, message.partition(b"\r\n\r\n")[0].split(b"\r\n"))) <= 78


def test_fields_that_the_relay_replaces_are_left_out() -> None:
    field = signatures(HEAD, body_hash(BODY), (RSA,), NOW, {b"date", b"message-id"})
    message = edit(HEAD, prepend=field) + BODY
    assert tag(message, "h") == "from:from:reply-to:subject:subject:to:to:cc:list-unsubscribe"
    assert verified(message.replace(b"<1@example.org>", b"<2@relay>").replace(b"12:00:00", b"13:00:00")) == [True]


@pytest.mark.parametrize(
    "head", [b"\r\n", b"To: a@b.test\r\n\r\n", b"From: a@b.test\r\n" + b"To: c@d.test\r\n" * 1000 + b"\r\n"]
)
def test_what_can_not_be_signed_gets_no_signature(head: bytes) -> None:
    assert signatures(head, body_hash(BODY), BOTH, NOW) == b""


NAMES = st.sampled_from(
    [b"From", b"to", b"TO", b"Cc", b"Subject", b"Reply-To", b"Sender", b"Date", b"X-Other", b"References", b"Received"]
)
VALUES = st.from_regex(
    rb"[ \t]{0,2}[!-~\x80-\xff][ -~\t\x80-\xff]{0,20}(\r\n[ \t]{1,2}[!-~]{1,10}){0,2}", fullmatch=True
)
BODIES = st.lists(st.sampled_from([b"\r\n", b" ", b"\t", b"a", b"b c", b".", b"\xff\xfe"]), max_size=20).map(b"".join)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12), BODIES)
def test_dkimpy_verifies_heads_of_every_shape(fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    written = [name + b":" + value + b"\r\n" for name, value in fields]
    head = b"From: a@example.org\r\n" + b"".join(written) + b"\r\n"
    on_the_wire = body if not body or body.endswith(b"\r\n") else body + b"\r\n"
    message = edit(head, prepend=signatures(head, body_hash(body), BOTH, NOW)) + on_the_wire
    assert verified(message) == [True, True]


def test_internationalised_fields_are_signed_as_they_stand() -> None:
    assert verified(signed("From: Jörg <jörg@example.org>\r\nSubject: grüße\r\n\r\n".encode(), BODY)) == [True, True]


def test_the_record_is_written_in_strings_of_255_octets() -> None:
    line = dns_record(RSA).zone_line()
    strings = re.findall(r'"([^"]*)"', line)
    assert line.startswith('one._domainkey.example.org. IN TXT ( "v=DKIM1; k=rsa; p=')
    assert [len(text) for text in strings] == [255, len(dns_record(RSA).value) - 255]
    assert "".join(strings) == dns_record(RSA).value
    assert len(base64.b64decode(dns_record(ED25519).value.partition("p=")[2])) == 32


RSA_768 = """-----BEGIN PRIVATE KEY-----
MIIB5gIBADANBgkqhkiG9w0BAQEFAASCAdAwggHMAgEAAmEAvB5Vpiun/6Hevi4g
50QkCTb/oMi1t7aIhZmzV9bRZV8zpsHxy2PFtX3M2oDdSAgoUPVutJZtk4mXRVEM
3hbeFbYoG6mrm+FAdxaDndSmAeCbH5Ix15Cnli6jV3WW0G01AgMBAAECYFC8eCfk
LqsA7tcSdx6qWQj3aMi5u3vIRFmKeLUnRiFKtaFJNZwECxN0lVnl2pKSpPWmHc0n
iKvixwQyLCSR01M6QSBus7AkiEyoZlDEXWUz7GYCPPWVzlYf/0y60xDRVQIxAPJW
jZ5rR2+YYTP2XKfGv0VU6xMncWUuH1kZANtnJzYMkGZa3fRCbJupVW0elP6ELwIx
AMa5R2BxhiGCDfdsEbqReHtyoNgNsJJsY01UjvjnTy5CSKa3RyW2ewSVgqlYKjT3
2wIxANoFlpmM6JL0o5bNMWTcQN6OXIM5/CHMUfWlsgiyECvnN85uN7t2OyH8QVfP
qLomjwIxAK0kCLhSsNbJBXopQlkXHa4Q9WrIoqswnGRn5BmhDy/yuHHpBagqEYyw
5yK8mimEOQIxALSiBfXdXESrBW8089qJ4h1TmgtqgjUawND2FYKguhyW2quw8+3N
NVfqug7CKB8Lcg==
-----END PRIVATE KEY-----
"""


@pytest.mark.parametrize("key", BOTH)
def test_keys_are_read_back(key: SigningKey) -> None:
    again = SigningKey(key.domain, key.selector, load_key(pem(key.private)))
    assert dns_record(again) == dns_record(key)


def test_what_is_no_key_for_dkim_is_refused() -> None:
    for text, words in (
        ("", "no private key"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no private key"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "neither an RSA nor an Ed25519"),
        (RSA_768, "768 bits"),
    ):
        with pytest.raises(ValueError, match=words):
            load_key(text)
