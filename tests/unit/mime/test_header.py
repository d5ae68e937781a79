"""Header fields as written: the standard parser reads back what was put in, and no value leaves its field."""

from __future__ import annotations

import email
import email.header
import email.policy
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime, unquote
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postroom.mime import header
from postroom.mime.address import Mailbox, parse_mailboxes

# What can be written: no controls, no separators of lines, no halves of surrogate pairs.
TEXT = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))
texts = st.text(TEXT, max_size=300) | st.text('ab =?_"\\,()<>@é漢🙂.', max_size=120)
words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
addresses = st.from_regex(r"[a-z]{1,30}(\.[a-z]{1,30})?@[a-z]{1,30}\.test", fullmatch=True)
utf8_addresses = st.from_regex(r"[a-zäßñ漢я]{1,20}(\.[a-zé]{1,9})?@[a-z]{1,20}\.test", fullmatch=True)


def parsed(field: bytes, policy: email.policy.Policy[Any] = email.policy.default) -> Any:
    message = email.message_from_bytes(field + b"\r\nbody", policy=policy)
    assert len(message.items()) == 1
    assert message.get_payload() == "body"
    return message


def check_lines(field: bytes, limit: int = 998) -> None:
    assert field.endswith(b"\r\n")
    lines = field[:-2].split(b"\r\n")
    assert all(len(line) <= limit for line in lines)
    assert all(line[:1] == b" " and line.strip() for line in lines[1:])
    assert all(b"\r" not in line and b"\n" not in line for line in lines)
    for word in re.findall(rb"=\?utf-8\?[qb]\?[^ ?]*\?=", field):
        assert len(word) <= 75
    assert all(len(line) <= 76 for line in lines if b"=?utf-8?" in line and len(field.split(b":")[0]) < 30)


@given(texts)
@example("a" * 3000)
@example(" leading and trailing ")
@example("   ")
@example("plain =?utf-8?q?not_encoded?= plain")
@example("a" + " " * 500 + "b")
@example("\N{GRINNING FACE}" * 200)
def test_free_text_is_read_back(text: str) -> None:
    field = header.unstructured("Subject", text)
    check_lines(field)
    assert field.isascii()
    assert str(parsed(field)["subject"]) == text


@given(st.lists(words, max_size=30).map(" ".join))
def test_plain_text_is_only_folded(text: str) -> None:
    field = header.unstructured("Subject", text)
    if "=?" not in text:
        assert field.replace(b"\r\n", b"") == b"Subject:" + (b" " + text.encode() if text else b"")


@given(st.lists(st.builds(Mailbox, addresses, texts.map(str.strip)), min_size=1, max_size=6))
@example([Mailbox("a@b.test", "Name <evil@c.test>, " * 20 + "x")])
@example([Mailbox("a@b.test", '"')])
@example([Mailbox("a@b.test", "a" * 1000)])
@example([Mailbox("a@b.test", "=?utf-8?q?Bcc=3A_x?=")])
def test_mailboxes_are_read_back(mailboxes: list[Mailbox]) -> None:
    field = header.addresses("To", mailboxes)
    check_lines(field)
    assert field.isascii()
    found = parsed(field)["to"].addresses
    assert [address.addr_spec for address in found] == [mailbox.address for mailbox in mailboxes]
    assert [_squeezed(address.display_name) for address in found] == [_squeezed(m.name) for m in mailboxes]
    assert parse_mailboxes(field[3:]) == tuple(mailbox.address for mailbox in mailboxes)


def _squeezed(name: str) -> str:
    # The standard parser of 3.11 keeps the white space between two encoded words and makes one space of a run.
    return re.sub(r"\s+", "", name)


@given(texts.map(str.strip).filter(bool))
def test_a_name_is_read_back_to_the_letter(name: str) -> None:
    value = header.addresses("To", [Mailbox("a@b.test", name)])[len("To: ") : -len(" <a@b.test>\r\n")]
    unfolded = value.replace(b"\r\n", b"").decode()
    if unfolded.startswith('"'):
        assert re.sub(r"\\(.)", r"\1", unfolded[1:-1]) == name
    else:
        assert str(email.header.make_header(email.header.decode_header(unfolded))) == name


def test_a_long_name_keeps_its_quotes() -> None:
    name = "Purchasing, Receiving & Returns Department of the Northern Warehouse, Building 7 (rear)"
    field = header.addresses("From", [Mailbox("a@b.test", name)])
    assert field.replace(b"\r\n", b"") == f'From: "{name}" <a@b.test>'.encode()
    assert field.count(b"\r\n") == 2


def test_each_mailbox_stays_on_a_line() -> None:
    field = header.addresses("To", [Mailbox(f"recipient{n}@department.example.test", "Some Body") for n in range(4)])
    assert field.split(b"\r\n")[:-1] == [
        b"To: Some Body <recipient0@department.example.test>,",
        b" Some Body <recipient1@department.example.test>,",
        b" Some Body <recipient2@department.example.test>,",
        b" Some Body <recipient3@department.example.test>",
    ]


def test_an_address_beyond_ascii_is_utf8() -> None:
    assert (
        header.addresses("To", [Mailbox("jörg@b.test", "Jörg Schulz")])
        == "To: =?utf-8?q?J=C3=B6rg_Schulz?= <jörg@b.test>\r\n".encode()
    )


@given(st.lists(st.builds(Mailbox, utf8_addresses, texts.map(str.strip)), min_size=1, max_size=6))
def test_nothing_but_the_address_is_utf8(mailboxes: list[Mailbox]) -> None:
    field = header.addresses("To", mailboxes)
    assert all(len(line) <= 76 for line in field.decode().split("\r\n"))
    assert parse_mailboxes(field[3:]) == tuple(mailbox.address for mailbox in mailboxes)
    found = email.message_from_string(field.decode() + "\r\n", policy=email.policy.SMTPUTF8)["to"].addresses
    assert [address.addr_spec for address in found] == [mailbox.address for mailbox in mailboxes]
    for mailbox in mailboxes:
        field = field.replace(mailbox.address.encode(), b"", 1)
    assert field.isascii()


@given(st.lists(words, min_size=1, max_size=10))
def test_words_for_programs_are_folded_only_at_white_space(found: list[str]) -> None:
    field = header.token("References", " ".join(found))
    check_lines(field)
    assert field[:-2].replace(b"\r\n", b"") == b"References: " + " ".join(found).encode()


def test_a_long_link_is_left_whole() -> None:
    link = "<https://lists.example.test/unsubscribe?" + "token=abcdef0123456789&" * 20 + ">"
    field = header.token("List-Unsubscribe", f"<mailto:u@lists.example.test>, {link}")
    assert link.encode() in field


@given(st.text(TEXT, min_size=1, max_size=120))
@example('quo"te\\ .pdf')
@example("Rechnung für März 2026 – " + "sehr " * 30 + "lang.pdf")
@example("a" * 500 + ".pdf")
@example("%41'*.pdf")
def test_parameters_are_read_back(name: str) -> None:
    field = header.parameterised("Content-Disposition", "attachment", {"filename": name})
    check_lines(field)
    assert field.isascii()
    message = parsed(field, email.policy.compat32)
    assert message.get_content_disposition() == "attachment"
    assert message.get_filename() in (name, name.strip(), unquote(name))  # the reader takes <> for quotes


def test_a_long_file_name_is_written_in_parts() -> None:
    field = header.parameterised("Content-Disposition", "attachment", {"filename": "ü" * 40})
    assert b"filename*0*=utf-8''%C3%BC" in field
    assert b"; filename*1*=%C3%BC" not in field  # on a line of its own
    assert b";\r\n filename*1*=%C3%BC" in field
    assert max(map(len, field.split(b"\r\n"))) <= 76


@pytest.mark.parametrize(
    "control", ["\r", "\n", "\r\n", "\x00", "\x0b", "\x7f", "\x85", "\u2028", "\u2029", "\ud800", "\t"]
)
@pytest.mark.parametrize(
    "write",
    [
        lambda text: header.unstructured("Subject", text),
        lambda text: header.addresses("To", [Mailbox("a@b.test", text)]),
        lambda text: header.addresses("To", [Mailbox(f"a{text}@b.test")]),
        lambda text: header.token("X-Token", text),
        lambda text: header.parameterised("Content-Type", "text/plain", {"name": text}),
        lambda text: header.unstructured(f"X{text}", "value"),
    ],
)
def test_a_control_character_is_refused(write: Callable[[str], bytes], control: str) -> None:
    with pytest.raises(ValueError):
        write(f"x{control}Bcc: evil@c.test")
    with pytest.raises(ValueError):
        write(f"é{control} y")


@pytest.mark.parametrize("name", ["", "Sub ject", "Subject:", "Ünde", "X" * 71])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        header.unstructured(name, "value")


def test_a_word_for_programs_may_not_be_longer_than_a_line() -> None:
    with pytest.raises(ValueError, match="longer than 998"):
        header.token("X-Token", "a" * 1000)


def test_addresses_need_one() -> None:
    with pytest.raises(ValueError, match="no mailbox"):
        header.addresses("To", [])


@given(st.datetimes(), st.integers(-14 * 60, 14 * 60))
def test_dates_are_written_as_the_standard_library_does(moment: datetime, minutes: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert header.date_value(aware) == format_datetime(aware)


def test_a_date_needs_a_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        header.date_value(datetime(2026, 11, 2))  # noqa: DTZ001
    assert header.date_value(datetime(2026, 11, 2, 3, 4, 5, tzinfo=UTC)) == "Mon, 02 Nov 2026 03:04:05 +0000"
