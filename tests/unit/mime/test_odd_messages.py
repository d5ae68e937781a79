"""Fields added, replaced and removed in odd messages: every other octet stays, and stays where it is."""

from __future__ import annotations

import email
import email.policy
import re

import pytest

from postroom.mime.head import edit, scan, split

from .odd_messages import ODD_MESSAGES, edited, read, without

RECEIVED = b"Received: from new\r\n\tby gateway; now\r\n"
ADDED = b"Date: today\r\nMessage-ID: <new@x.test>\r\n"
TAKEN_OUT = frozenset({b"bcc", b"resent-bcc", b"return-path", b"x-postroom-*"})

# The standard parser ends the header section at the first line that is no field.
OF_FIELDS = {
    oddity: content
    for oddity, content in ODD_MESSAGES.items()
    if all(re.match(rb"[!-9;-~]+:", unit.octets) for unit in read(split(content)[0]))
}

every_odd_message = pytest.mark.parametrize("content", ODD_MESSAGES.values(), ids=ODD_MESSAGES.keys())
every_message_of_fields = pytest.mark.parametrize("content", OF_FIELDS.values(), ids=OF_FIELDS.keys())


@every_odd_message
def test_head_and_body_make_the_message(content: bytes) -> None:
    head, body = split(content)
    assert (
        head + body == content
        or head.removesuffix(b"\r\n") + body == content
        or (head.removesuffix(b"\r\n\r\n") + body == content)
    )


@every_odd_message
def test_fields_are_found(content: bytes) -> None:
    head, _ = split(content)
    units = [unit for unit in read(head) if unit.name]
    assert [name for name, _, _ in scan(head).fields] == [unit.name for unit in units]
    assert [head[start:end] for _, start, end in scan(head).fields] == [unit.octets for unit in units]


@every_odd_message
def test_an_edit_of_nothing_changes_nothing(content: bytes) -> None:
    head, _ = split(content)
    assert edit(head) == head
    assert edit(head, remove=frozenset({b"not-there", b"not-*"})) == head


@every_odd_message
def test_fields_are_added(content: bytes) -> None:
    head, _ = split(content)
    assert edit(head, prepend=RECEIVED, append=ADDED) == edited(read(head), RECEIVED, ADDED) + b"\r\n"


@every_odd_message
def test_each_field_is_removed_whole(content: bytes) -> None:
    head, _ = split(content)
    units = read(head)
    for names in {TAKEN_OUT, *(frozenset({unit.name}) for unit in units if unit.name and b"*" not in unit.name)}:
        left = without(units, names)
        assert edit(head, remove=names) == b"".join(unit.octets for unit in left) + b"\r\n"
        assert edit(head, prepend=RECEIVED, remove=names, append=ADDED) == edited(left, RECEIVED, ADDED) + b"\r\n"


@every_odd_message
def test_a_field_is_replaced(content: bytes) -> None:
    head, _ = split(content)
    new = edit(head, remove=frozenset({b"subject"}), append=b"Subject: new\r\n")
    assert scan(new).all(b"subject") == [b"new"]
    assert new == edited(without(read(head), frozenset({b"subject"})), b"", b"Subject: new\r\n") + b"\r\n"


@every_message_of_fields
def test_the_standard_parser_sees_the_same_change(content: bytes) -> None:
    head, _ = split(content)
    before = email.message_from_bytes(head, policy=email.policy.compat32)
    edited_head = edit(head, prepend=RECEIVED, remove=TAKEN_OUT, append=ADDED)
    after = email.message_from_bytes(edited_head, policy=email.policy.compat32)
    kept = [(name, value) for name, value in before.items() if not _is_taken_out(name)]
    assert after.items()[0][0] == "Received"
    assert after.items()[1:-2] == kept
    assert after.items()[-2:] == [("Date", "today"), ("Message-ID", "<new@x.test>")]


def _is_taken_out(name: str) -> bool:
    return name.lower() in ("bcc", "resent-bcc", "return-path") or name.lower().startswith("x-postroom-")
