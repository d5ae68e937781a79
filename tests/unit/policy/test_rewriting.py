"""Another sender: what is rewritten, and that every other octet stays."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mime.address import parse_mailboxes
from postroom.mime.head import edit, scan
from postroom.model.envelope import Envelope
from postroom.policy.rewriting import Change, FixedSender, rewrite

ROBOT = FixedSender("robot@relay.example")
ENVELOPE = Envelope("ann@x.test", ("bob@y.test",))
ANN = b"From: Ann <ann@x.test>\r\n"
TO = b"To: bob@y.test\r\n"


def head_after(head: bytes, fixed: FixedSender = ROBOT, envelope: Envelope = ENVELOPE) -> bytes:
    return rewrite(fixed, envelope, head + b"\r\n").head.removesuffix(b"\r\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"From: ann@x.test", b"From: robot@relay.example"),
        (b"From: <ann@x.test>", b"From: <robot@relay.example>"),
        (b"FROM :Ann  Example\t<ann@x.test>", b"FROM :Ann  Example\t<robot@relay.example>"),
        (b'From: "Example, Ann" <ann@x.test>', b'From: "Example, Ann" <robot@relay.example>'),
        (b"From: =?utf-8?q?J=C3=B6rg?=\r\n <j@x.test>", b"From: =?utf-8?q?J=C3=B6rg?=\r\n <robot@relay.example>"),
        (b"From: ann@x.test (Ann)", b"From: robot@relay.example (Ann)"),
        (b"From: Ann (works) <ann@x.test> (here)", b"From: Ann (works) <robot@relay.example> (here)"),
        (b"From: (a; b) ann@x.test (c; d)", b"From: (a; b) robot@relay.example (c; d)"),
        (b'From: "ann@x.test" <ann@x.test>', b'From: "ann@x.test" <robot@relay.example>'),
        (b"From: ann@x.test <ann@x.test>", b"From: robot@relay.example"),
        (b"From: Ann <ann@x.test>, Bob <bob@x.test>", b"From: Ann <robot@relay.example>"),
        (b"From: ann@x.test, bob@x.test", b"From: robot@relay.example"),
        (b"From: Team: Ann <ann@x.test>;", b"From: Ann <robot@relay.example>"),
        (b"From: Team:;", b"From: robot@relay.example"),
        (b"From:", b"From: robot@relay.example"),
        (b"From: Example, Ann <ann@x.test>", b'From: "Example, Ann" <robot@relay.example>'),
        (b"From: J\xc3\xb6rg, B <j@x.test>", b"From: =?utf-8?b?SsO2cmcsIEI=?= <robot@relay.example>"),
        (b"From: a@x.test <b@x.test>", b"From: robot@relay.example"),
        (b"From: nobody", b"From: robot@relay.example"),
    ],
)
def test_only_the_address_is_another(before: bytes, after: bytes) -> None:
    assert head_after(TO + before + b"\r\n" + TO) == TO + after + b"\r\n" + TO


def test_sender_and_reverse_path_change_with_it() -> None:
    found = rewrite(ROBOT, ENVELOPE, ANN + b"Sender: Bob <bob@x.test>\r\n" + TO + b"\r\n")
    assert found.head == b"From: Ann <robot@relay.example>\r\nSender: Bob <robot@relay.example>\r\n" + TO + b"\r\n"
    assert found.envelope == Envelope("robot@relay.example", ("bob@y.test",))
    assert found.changes == (
        Change("reverse-path", "ann@x.test", "robot@relay.example"),
        Change("From", "ann@x.test", "robot@relay.example"),
        Change("Sender", "bob@x.test", "robot@relay.example"),
    )


def test_a_null_reverse_path_stays_null() -> None:
    found = rewrite(ROBOT, Envelope("", ("bob@y.test",)), ANN + b"\r\n")
    assert found.envelope.reverse_path == ""
    assert found.head == b"From: Ann <robot@relay.example>\r\n\r\n"


def test_a_fixed_name_replaces_every_display_name() -> None:
    named = FixedSender("robot@relay.example", "Röbot, of X")
    after = b" =?utf-8?b?UsO2Ym90LCBvZiBY?= <robot@relay.example>\r\n"
    assert head_after(ANN + b"Sender: b@x.test\r\n", named) == b"From:" + after + b"Sender:" + after
    assert head_after(b"From: robot@relay.example\r\n", named) == b"From:" + after


def test_who_is_the_fixed_sender_already_changes_nothing() -> None:
    head = b"From: Ann <ROBOT@relay.example>\r\n\r\n"
    envelope = Envelope("robot@relay.example", ("bob@y.test",))
    found = rewrite(FixedSender("robot@relay.example", original_to_reply_to=True), envelope, head)
    assert (found.head, found.envelope, found.changes) == (head, envelope, ())


def test_no_fixed_sender_changes_nothing() -> None:
    found = rewrite(None, ENVELOPE, ANN + b"\r\n")
    assert (found.head, found.envelope, found.changes) == (ANN + b"\r\n", ENVELOPE, ())


def test_a_message_without_from_gets_one() -> None:
    assert head_after(TO) == TO + b"From: robot@relay.example\r\n"


def test_of_several_from_fields_the_topmost_stays() -> None:
    head = ANN + TO + b"From: Eve <eve@x.test>\r\nSender: a@x.test\r\nSender: b@x.test\r\n"
    assert head_after(head) == b"From: Ann <robot@relay.example>\r\n" + TO + b"Sender: robot@relay.example\r\n"


REPLYING = FixedSender("robot@relay.example", original_to_reply_to=True)


@pytest.mark.parametrize(
    ("head", "after"),
    [
        (ANN, b"From: Ann <robot@relay.example>\r\nReply-To: Ann <ann@x.test>\r\n"),
        (ANN + b"Reply-To: c@x.test\r\n", b"From: Ann <robot@relay.example>\r\nReply-To: c@x.test\r\n"),
        (
            b"From: =?utf-8?q?A?=\r\n <a@x.test>, b@x.test\r\n",
            b"From: =?utf-8?q?A?=\r\n <robot@relay.example>\r\nReply-To: =?utf-8?q?A?=\r\n <a@x.test>, b@x.test\r\n",
        ),
        (b"From: nobody\r\n", b"From: robot@relay.example\r\n"),
        (b"From: Team:;\r\n", b"From: robot@relay.example\r\n"),
    ],
)
def test_the_original_goes_into_reply_to_where_there_is_none(head: bytes, after: bytes) -> None:
    assert head_after(head, REPLYING) == after


def test_the_change_of_reply_to_is_told() -> None:
    assert rewrite(REPLYING, ENVELOPE, ANN + b"\r\n").changes[1:] == (
        Change("From", "ann@x.test", "robot@relay.example"),
        Change("Reply-To", "", "ann@x.test"),
    )


@pytest.mark.parametrize(
    ("sensitivity", "keeps"),
    [(b"Private", True), (b" private ", True), (b"Personal", False), (b"Privateer", False), (b"", False)],
)
def test_a_private_message_keeps_its_sender(sensitivity: bytes, keeps: bool) -> None:
    head = ANN + b"Sensitivity: " + sensitivity + b"\r\n\r\n"
    found = rewrite(FixedSender("robot@relay.example", keep_private=True), ENVELOPE, head)
    assert (found.head == head, found.envelope == ENVELOPE, found.changes == ()) == (keeps, keeps, keeps)
    assert rewrite(ROBOT, ENVELOPE, head).envelope.reverse_path == "robot@relay.example"


def test_an_address_beyond_ascii_needs_smtputf8_and_its_loss_does_not() -> None:
    found = rewrite(FixedSender("rößl@relay.example"), ENVELOPE, ANN + b"\r\n")
    assert (found.envelope.smtputf8, found.envelope.eight_bit) == (True, True)
    assert found.head == "From: Ann <rößl@relay.example>\r\n\r\n".encode()
    utf8 = Envelope("jörg@x.test", ("bob@y.test",), eight_bit=True, smtputf8=True)
    assert not rewrite(ROBOT, utf8, "From: jörg@x.test\r\n\r\n".encode()).envelope.smtputf8
    assert rewrite(ROBOT, utf8, "From: jörg@x.test\r\nSubject: ü\r\n\r\n".encode()).envelope.smtputf8
    assert rewrite(REPLYING, utf8, "From: jörg@x.test\r\n\r\n".encode()).envelope.smtputf8


def test_no_line_grows_beyond_its_limit() -> None:
    head = b'From: "' + b"n" * 970 + b'" <a@x.test>\r\n'
    after = head_after(head, REPLYING)
    assert max(map(len, after.split(b"\r\n"))) <= 998
    assert parse_mailboxes(scan(after).first(b"from") or b"") == ("robot@relay.example",)


NAMES = st.sampled_from([b"From", b"FROM", b"Sender", b"Reply-To", b"Subject", b"To", b"X-From", b"Resent-From", b"a"])
VALUES = st.from_regex(rb"[ -~\x80-\xff]{0,20}(\r\n[ \t][ -~]{0,10}){0,2}", fullmatch=True) | st.sampled_from(
    [b" Ann <ann@x.test>", b' "A, B" <a@x.test>,\r\n b@x.test', b" T: a@x.test, b@x.test;", b" J\xc3\xb6rg <j@x.test>"]
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)
FIXED = st.builds(
    FixedSender,
    st.sampled_from(["robot@relay.example", "ann@x.test"]),
    st.sampled_from(["", "Röbot"]),
    st.booleans(),
    st.booleans(),
)
BROKEN = st.binary(max_size=200) | st.from_regex(rb"([FBb>:a@<, \t\r\n]|From ?|Sender:|\r\n){0,40}", fullmatch=True)


def others(head: bytes, also: bytes = b"") -> list[bytes]:
    """What is no field of the sender, in pieces between such fields."""
    pieces, at = [], 0
    for name, start, end in scan(head).fields:
        if name in (b"from", b"sender", also):
            pieces.append(head[at:start])
            at = end
    return [piece for piece in (*pieces, head[at:]) if piece]


@given(FIXED, FIELDS)
def test_every_other_octet_stays(fixed: FixedSender, fields: list[tuple[bytes, bytes]]) -> None:
    head = b"".join(name + b":" + value + b"\r\n" for name, value in fields) + b"\r\n"
    found = rewrite(fixed, ENVELOPE, head)
    added = b"reply-to" if not scan(head).count(b"reply-to") else b""
    assert b"".join(others(found.head, added)) == b"".join(others(head))
    assert parse_mailboxes(scan(found.head).first(b"from") or b"") == (fixed.address,)
    assert scan(found.head).count(b"from") == 1
    assert {address for value in scan(found.head).all(b"sender") for address in parse_mailboxes(value)} <= {
        fixed.address
    }
    parsed = email.message_from_bytes(found.head, policy=email.policy.compat32)
    assert [name.lower() for name in parsed.keys()].count("from") == 1
    again = rewrite(fixed, found.envelope, found.head)
    assert again.head == found.head and again.envelope == found.envelope


@given(FIXED, BROKEN)
def test_any_head_is_carried(fixed: FixedSender, content: bytes) -> None:
    head = edit(content, append=b"X-Last: 1\r\n") + b"\r\n"
    found = rewrite(fixed, ENVELOPE, head)
    added = b"reply-to" if not scan(head).count(b"reply-to") else b""
    assert b"".join(others(found.head, added)) == b"".join(others(head))
    assert parse_mailboxes(scan(found.head).first(b"from") or b"") == (fixed.address,)


@pytest.mark.parametrize(
    "value", [b" " + b"a" * 900_000, b" " + b"a, " * 300_000, b" x <" * 200_000, b"\r\n a" * 200_000, b"(" * 900_000]
)
def test_a_megabyte_in_from_is_rewritten_in_one_pass(value: bytes) -> None:
    after = head_after(b"From:" + value + b"\r\n", REPLYING)
    assert parse_mailboxes(scan(after).first(b"from") or b"") == ("robot@relay.example",)
