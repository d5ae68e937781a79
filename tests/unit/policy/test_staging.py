"""The staging guard: who is listed, and what a redirected copy looks like."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import default

import pytest

from postroom.policy.staging import StagingGuard

GUARD = StagingGuard(("qa@example.org", "*@test.example", "*@*.lab.example"), "Inbox@staging.example", "[STAGING]")
HEAD = b"From: a@x.test\r\nSubject: Hello\r\nTo: b@y.test\r\n\r\n"
FIELD = b"X-Postroom-Original-To: b@y.test\r\n"


@pytest.mark.parametrize(
    "recipient", ["qa@example.org", "QA@Example.ORG", "x@test.example", "x@a.lab.example", "inbox@staging.example"]
)
def test_listed_recipients_are_not_redirected(recipient: str) -> None:
    assert not GUARD.redirects(recipient)


@pytest.mark.parametrize(
    "recipient",
    [
        "other@example.org", "x@a.test.example", "x@nottest.example", "x@lab.example", "x@test.example.evil.test",
        "x@test.example.", '"qa"@example.org', "qa@example.org@evil.test", "postmaster", "",
    ],
)  # fmt: skip
def test_all_others_are(recipient: str) -> None:
    assert GUARD.redirects(recipient)


def test_an_empty_list_redirects_everything_but_the_one_address() -> None:
    guard = StagingGuard((), "*@staging.example", "")
    assert guard.redirects("x@staging.example")
    assert not guard.redirects("*@staging.example")


def test_only_the_subject_and_the_field_are_other_than_before() -> None:
    assert GUARD.marked(HEAD, ["b@y.test"]) == FIELD + HEAD.replace(b"Hello", b"[STAGING] Hello")


@pytest.mark.parametrize(
    ("subject", "marked"),
    [
        (b"Subject:Hello", b"Subject: [STAGING] Hello"),
        (b"SUBJECT :  Hello", b"SUBJECT : [STAGING]  Hello"),
        (b"Subject:\r\n Hello", b"Subject: [STAGING]\r\n Hello"),
        (b"Subject:", b"Subject: [STAGING]"),
        (b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=", b"Subject: [STAGING] =?utf-8?q?Gr=C3=BC=C3=9Fe?="),
        (b"Subject: " + b"x" * 70, b"Subject: [STAGING]\r\n " + b"x" * 70),
        (b"Subject: one\r\nSubject: two", b"Subject: [STAGING] one\r\nSubject: [STAGING] two"),
        (b"Subject: \xff\xfe", b"Subject: [STAGING] \xff\xfe"),
    ],
)
def test_a_subject_keeps_its_octets_behind_the_prefix(subject: bytes, marked: bytes) -> None:
    assert (
        GUARD.marked(subject + b"\r\nTo: b@y.test\r\n\r\n", ["b@y.test"])
        == FIELD + marked + b"\r\nTo: b@y.test\r\n\r\n"
    )


def test_a_message_without_a_subject_gets_one() -> None:
    assert GUARD.marked(b"To: b@y.test\r\n\r\n", ["b@y.test"]) == FIELD + b"To: b@y.test\r\nSubject: [STAGING]\r\n\r\n"


@pytest.mark.parametrize("subject", ["Grüße", "Hello", "=?utf-8?q?Gr=C3=BC=C3=9Fe?="])
@pytest.mark.parametrize(
    "prefix", ["[PRÜFUNG] ", "[ПРОВЕРКА очень длинная приписка перед темой письма]", "[=?x?=]", "[S] "]
)
def test_readers_see_prefix_and_subject_with_a_space_between(prefix: str, subject: str) -> None:
    head = StagingGuard((), "i@s.test", prefix).marked(f"Subject: {subject}\r\n\r\n".encode(), ["b@y.test"])
    shown = message_from_bytes(head, policy=default)["Subject"]
    assert str(shown) == f"{prefix.strip()} {'Grüße' if 'Gr' in subject else 'Hello'}"
    assert all(len(line) <= 78 for line in head.split(b"\r\n"))


def test_many_and_strange_recipients_make_one_field() -> None:
    recipients = ['"a, b"@y.test', '"x=?y"@y.test', "gr\u00fc\u00dfe@y.test", *(f"r{n}@y.test" for n in range(1000))]
    head = GUARD.marked(HEAD, recipients)
    message = message_from_bytes(head, policy=default)
    assert message["X-Postroom-Original-To"] == ", ".join(recipients)
    assert head.isascii()
    assert set(message.keys()) == {"X-Postroom-Original-To", "From", "Subject", "To"}


def test_a_recipient_can_not_end_its_field() -> None:
    with pytest.raises(ValueError, match="control character"):
        GUARD.marked(HEAD, ["b@y.test\r\nBcc: c@z.test"])
