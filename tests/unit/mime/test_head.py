"""The head as bytes: what is found, what is added and removed, and that nothing else changes."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mime.head import edit, scan, split

HEAD = (
    b"Received: from a\r\n\tby b;\r\n date\r\n"
    b"From: <a@a.test>\r\n"
    b"bCc : hidden@b.test,\r\n more@b.test\r\n"
    b"X-Postroom-Account: one\r\n"
    b"Subject:folded\r\n  subject \r\n"
    b"Received: from c\r\n"
    b"\r\n"
)
REMOVED = frozenset({b"bcc", b"x-postroom-*"})
RECEIVED = b"Received: from new\r\n\tby gateway\r\n"

names = st.from_regex(rb"[!-9;-~]{1,12}", fullmatch=True)
values = st.from_regex(rb"[ -~\x80-\xff]{0,20}(\r\n[ \t][ -~]{0,10}){0,2}", fullmatch=True)
fields = st.lists(st.tuples(names, values), max_size=8)


def written(pairs: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(name + b":" + value + b"\r\n" for name, value in pairs) + b"\r\n"


def test_first_all_and_count() -> None:
    found = scan(HEAD)
    assert found.first(b"subject") == b"folded\r\n  subject"
    assert found.first(b"bcc") == b"hidden@b.test,\r\n more@b.test"
    assert found.first(b"to") is None
    assert found.count(b"received") == 2
    assert found.count(b"to") == 0
    assert found.all(b"received") == [b"from a\r\n\tby b;\r\n date", b"from c"]


def test_offsets_name_whole_fields() -> None:
    assert b"".join(HEAD[start:end] for _, start, end in scan(HEAD).fields) + b"\r\n" == HEAD


def test_edit_prepends_removes_and_appends() -> None:
    edited = edit(HEAD, prepend=RECEIVED, remove=REMOVED, append=b"Date: today\r\n")
    assert edited == (
        RECEIVED + b"Received: from a\r\n\tby b;\r\n date\r\n"
        b"From: <a@a.test>\r\n"
        b"Subject:folded\r\n  subject \r\n"
        b"Received: from c\r\n"
        b"Date: today\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    "field",
    [
        b"Bcc: x\r\n",
        b"BCC\t : x\r\n",
        b"bcc:\r\n",
        b"Bcc:\r\n x\r\n \t\r\n y\r\n",
        b"X-Postroom-: y\r\n",
        b"Bcc:x\n y\n",
    ],
)
@pytest.mark.parametrize("before", [b"", b"To: a\r\n", b"no colon\r\n"])
def test_what_is_removed_goes_whole(before: bytes, field: bytes) -> None:
    assert edit(before + field + b"Cc: b\r\n\r\n", remove=REMOVED) == before + b"Cc: b\r\n\r\n"


@pytest.mark.parametrize(
    "field", [b"X-Bcc: x\r\n", b"Bccc: x\r\n", b"X-Postroo: y\r\n", b"To: a\r\n Bcc: x\r\n", b"b cc: x\r\n"]
)
def test_what_only_looks_so_stays(field: bytes) -> None:
    assert edit(field + b"\r\n", remove=REMOVED) == field + b"\r\n"


@given(fields)
def test_an_edit_of_nothing_changes_nothing(pairs: list[tuple[bytes, bytes]]) -> None:
    head = written(pairs)
    assert edit(head) == head
    assert [name for name, _, _ in scan(head).fields] == [name.lower() for name, _ in pairs]
    assert [scan(head).all(name.lower()) for name, _ in pairs] == [
        [value.strip() for other, value in pairs if other.lower() == name.lower()] for name, _ in pairs
    ]


@given(fields, st.sets(st.sampled_from([b"bcc", b"return-path"])), fields)
def test_the_rest_stays_byte_identical(
    before: list[tuple[bytes, bytes]], removed: set[bytes], after: list[tuple[bytes, bytes]]
) -> None:
    between = [(name.title(), b" x\r\n\ty") for name in sorted(removed)]
    kept = [pair for pair in before + after if pair[0].lower() not in removed]
    head = written(before + between + after)
    assert edit(head, prepend=RECEIVED, remove=frozenset(removed)) == RECEIVED + written(kept)


@given(st.binary(max_size=200) | st.from_regex(rb"([FBb>:a \t\r\n]|From |bcc|\r\n){0,40}", fullmatch=True))
def test_any_octets_are_carried(content: bytes) -> None:
    head, body = split(content)
    added = head.removesuffix(b"\r\n") if head + body != content else head
    assert head + body == content or added + body == content or added.removesuffix(b"\r\n") + body == content
    assert head.endswith((b"\n\n", b"\n\r\n")) or head in (b"\n", b"\r\n")
    assert len(edit(head, prepend=RECEIVED)) == len(head) + len(RECEIVED)
    assert scan(edit(head, prepend=RECEIVED)).first(b"received") == b"from new\r\n\tby gateway"
    assert scan(edit(head, remove=REMOVED)).count(b"bcc") == 0
    assert scan(edit(content, remove=REMOVED)).count(b"bcc") == 0


@pytest.mark.parametrize(
    ("content", "head", "body"),
    [
        (b"To: a\r\n\r\nbody", b"To: a\r\n\r\n", b"body"),
        (b"To: a\n\nbody", b"To: a\n\n", b"body"),
        (b"To: a\r\n\r\n", b"To: a\r\n\r\n", b""),
        (b"\r\nbody\r\n\r\n", b"\r\n", b"body\r\n\r\n"),
        (b"", b"\r\n", b""),
        (b"To: a", b"To: a\r\n\r\n", b""),
        (b"To: a\r\n b\r\n", b"To: a\r\n b\r\n\r\n", b""),
        (b"To: a\r\ntext\r\n", b"To: a\r\n\r\n", b"text\r\n"),
        (b"Dear all,\r\n\r\nTo: a\r\n", b"\r\n", b"Dear all,\r\n\r\nTo: a\r\n"),
        (b" To: a\r\n\r\nbody", b"\r\n", b" To: a\r\n\r\nbody"),
        (b"From a@b Mon\r\nTo: a\r\n\r\nbody", b"From a@b Mon\r\nTo: a\r\n\r\n", b"body"),
        (b"From : a@b\r\n\r\nbody", b"From : a@b\r\n\r\n", b"body"),
        (b"To: a\r\nno colon\r\nCc: b\r\n\r\nbody", b"To: a\r\nno colon\r\nCc: b\r\n\r\n", b"body"),
    ],
)
def test_split(content: bytes, head: bytes, body: bytes) -> None:
    assert split(content) == (head, body)


def test_an_mbox_line_stays_first() -> None:
    assert (
        edit(b">From a@b Mon 1\r\nTo: a\r\n\r\n", prepend=RECEIVED)
        == b">From a@b Mon 1\r\n" + RECEIVED + b"To: a\r\n\r\n"
    )


def test_an_orphan_continuation_is_not_glued_to_the_trace() -> None:
    edited = edit(b" evil\r\nTo: a\r\n\r\n", prepend=RECEIVED)
    assert scan(edited).first(b"received") == b"from new\r\n\tby gateway"
    assert edited == b" evil\r\n" + RECEIVED + b"To: a\r\n\r\n"


def test_append_goes_above_the_first_line_that_is_no_field() -> None:
    edited = edit(b"To: a\r\n b\r\nno colon\r\nCc: b\r\n\r\n", append=b"Date: d\r\n")
    assert edited == b"To: a\r\n b\r\nDate: d\r\nno colon\r\nCc: b\r\n\r\n"


@given(fields)
def test_the_standard_parser_sees_what_was_added(pairs: list[tuple[bytes, bytes]]) -> None:
    edited = edit(written(pairs), prepend=b"X-First: 1\r\n", append=b"X-Last: 2\r\n")
    parsed = email.message_from_bytes(edited, policy=email.policy.compat32)
    assert parsed.items()[0] == ("X-First", "1")
    assert parsed.items()[-1] == ("X-Last", "2")
    assert len(parsed.items()) == len(pairs) + 2


@pytest.mark.parametrize(
    "line",
    [b"Bcc: x\r\n", b"Bcc" + b" " * 1000 + b"\r\n", b"a" * 1000, b"\r\n", b":\r\n", b" \r\n", b"x-postroom-", b"From "],
)
def test_megabytes_of_one_thing_are_read_in_one_pass(line: bytes) -> None:
    # A pattern that goes back and forth would take hours for this; the suite's time limit would end it.
    head = b"To: a\r\n" + line * (5_000_000 // len(line)) + b"\r\n\r\n"
    assert scan(head).count(b"to") == 1
    assert edit(head, prepend=RECEIVED, remove=REMOVED, append=b"Date: d\r\n").startswith(RECEIVED)
    assert b"".join(split(head)) == head
