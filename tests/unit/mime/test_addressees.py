"""To, Cc and Bcc made equal to an envelope; judged by the parser of the standard library."""

from __future__ import annotations

import email
import email.policy
from email.utils import getaddresses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mime.address import Mailbox
from postroom.mime.addressees import addressed_to, recipients_named, same
from postroom.mime.header import addresses


def named(head: bytes) -> list[str]:
    """Whom the standard library finds in To, Cc and Bcc."""
    message = email.message_from_bytes(head, policy=email.policy.default)
    fields = [str(field) for name in ("to", "cc", "bcc") for field in message.get_all(name, [])]
    return [address for _, address in getaddresses(fields)]


def test_a_message_whose_fields_name_its_recipients_goes_as_it_is() -> None:
    head = b'From: a@x.test\r\nTo: "Q, B"  <B@y.test>,\r\n\tc@y.test\r\nSubject: hi\r\n\r\n'
    made = addressed_to(head, ["c@Y.test", "b@y.test"])
    assert made.head == head
    assert not made.is_trimmed
    assert made.hidden == ()


def test_who_stands_in_the_envelope_alone_becomes_bcc() -> None:
    head = b"To: b@y.test\r\nSubject: hi\r\n\r\n"
    made = addressed_to(head, ["b@y.test", "c@y.test", "d@y.test"])
    assert made.head == b"To: b@y.test\r\nSubject: hi\r\nBcc: c@y.test, d@y.test\r\n\r\n"
    assert made.hidden == ("c@y.test", "d@y.test")
    assert not made.is_trimmed


def test_addresses_outside_the_envelope_are_taken_out_and_told_and_their_neighbours_stay_as_written() -> None:
    head = (
        b"Received: from x by y\r\nTo: Ann =?utf-8?q?=C3=84?= <a@y.test> ,\r\n b@y.test (Bob, our man),\r\n"
        b'  "C; c" <c@y.test>,\r\n\td@y.test\r\ncC : e@y.test\r\nX-To: b@y.test\r\n\r\n'
    )
    made = addressed_to(head, ["a@y.test", "c@y.test", "d@y.test"])
    assert made.head == (
        b"Received: from x by y\r\nTo: Ann =?utf-8?q?=C3=84?= <a@y.test>,\r\n"
        b' "C; c" <c@y.test>,\r\n\td@y.test\r\nX-To: b@y.test\r\n\r\n'
    )
    assert made.taken_out == ("b@y.test", "e@y.test")
    assert made.hidden == ()


def test_a_group_loses_its_name_with_a_member_and_an_empty_one_stays() -> None:
    made = addressed_to(b"To: Team: a@y.test, b@y.test;, c@y.test\r\nCc: nobody:;\r\n\r\n", ["a@y.test", "c@y.test"])
    assert made.head == b"To: a@y.test,\r\n c@y.test\r\nCc: nobody:;\r\n\r\n"


def test_a_field_that_can_be_read_in_two_ways_goes_and_its_recipients_become_bcc() -> None:
    made = addressed_to(b"To: a@y.test <b@z.test>\r\nSubject: hi\r\n\r\n", ["a@y.test"])
    assert made.head == b"Subject: hi\r\nBcc: a@y.test\r\n\r\n"
    assert made.unreadable == ("To",)
    assert made.is_trimmed


def test_a_domain_is_the_same_in_either_spelling() -> None:
    head = "To: b@bücher.test\r\n\r\n".encode()
    made = addressed_to(head, ["b@xn--bcher-kva.test"])
    assert made.head == head
    assert same("B@BÜCHER.test") == "b@xn--bcher-kva.test"


def test_what_no_header_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="not an address"):
        addressed_to(b"\r\n", ["no address"])


NAMES = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=20).map(str.strip)
LOCALS = st.from_regex(r"[a-z0-9.+]{1,8}", fullmatch=True).filter(
    lambda text: ".." not in text and text.strip(".") == text
)
MAILBOXES = st.builds(lambda local, name: Mailbox(f"{local}@y.test", name), LOCALS, NAMES)


@given(
    to=st.lists(MAILBOXES, max_size=8),
    cc=st.lists(MAILBOXES, max_size=8),
    chosen=st.data(),
    hidden=st.lists(LOCALS.map(lambda local: f"{local}@z.test"), max_size=4, unique=True),
)
def test_the_copy_names_the_envelope_and_nobody_else(
    to: list[Mailbox], cc: list[Mailbox], chosen: st.DataObject, hidden: list[str]
) -> None:
    head = b"From: a@x.test\r\n"
    for field, mailboxes in (("To", to), ("Cc", cc)):
        head += addresses(field, mailboxes) if mailboxes else b""
    head += b"Subject: hi\r\n\r\n"
    everyone = sorted({mailbox.address for mailbox in (*to, *cc)})
    envelope = chosen.draw(st.lists(st.sampled_from(everyone), unique=True)) if everyone else []
    envelope += hidden
    made = addressed_to(head, envelope)
    assert set(named(made.head)) == set(envelope)
    assert set(recipients_named(made.head)) == set(envelope)
    assert set(made.taken_out) == set(everyone) - set(envelope)
    assert made.head.startswith(b"From: a@x.test\r\n")
    assert b"Subject: hi\r\n" in made.head
    assert addressed_to(made.head, envelope).head == made.head, "once more changes nothing"
