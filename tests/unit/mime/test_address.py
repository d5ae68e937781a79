"""Mailboxes of address headers: what is read, what is refused, and that it stays linear."""

from __future__ import annotations

import email.headerregistry
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mime.address import is_address, parse_mailboxes

ATEXT = string.ascii_letters + string.digits + "!#$%&'*+-/=?^_`{|}~"
atoms = st.text(ATEXT + "éß漢", min_size=1, max_size=8)
dot_atoms = st.lists(atoms, min_size=1, max_size=3).map(".".join)
quoted_locals = st.text(string.ascii_letters + ' @<>,;:()[]."\\', min_size=1, max_size=8).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + ' x"'
)
addresses = st.tuples(dot_atoms | quoted_locals, dot_atoms).map("@".join)
spaces = st.sampled_from(["", " ", "\t", "\r\n ", " (c)", "(a (b) \\) @ <c@d>, )", " (漢)\r\n\t"])
phrases = st.sampled_from(["", "Name", "A. B. Name", '"Name, \\"x\\" <a@b>"', "=?utf-8?q?N=C3=A9?=", "Né (c) é", '"x"'])
mailboxes = st.tuples(spaces, phrases, spaces, spaces, spaces, addresses).map(
    lambda m: (m[0] + m[1] + m[2] + "<" + m[3] + m[5] + m[4] + ">", m[5])
)
bare = st.tuples(spaces, addresses, spaces).map(lambda m: ("".join(m), m[1]))
elements = mailboxes | bare


@given(st.lists(elements, max_size=5), spaces)
def test_lists_that_were_put_together_come_apart(parts: list[tuple[str, str]], end: str) -> None:
    value = ",".join(text for text, _ in parts) + end
    assert parse_mailboxes(value.encode()) == tuple(address for _, address in parts)


@given(st.lists(elements, max_size=3), st.lists(elements, max_size=3), spaces)
def test_groups_are_opened(group: list[tuple[str, str]], after: list[tuple[str, str]], space: str) -> None:
    value = f"Group {space}:" + ",".join(text for text, _ in group) + ";" + space
    value += "".join("," + text for text, _ in after)
    assert parse_mailboxes(value.encode()) == tuple(address for _, address in group + after)


@given(st.text('ab@.<>()",:; \\\r\n', max_size=24).map(str.encode) | st.binary(max_size=24))
def test_anything_is_read_or_refused(value: bytes) -> None:
    try:
        found = parse_mailboxes(value)
    except ValueError as error:
        assert str(error)
    else:
        assert all(is_address(address) for address in found)


@given(
    st.lists(
        st.tuples(st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5})?", fullmatch=True), st.sampled_from(["b.test", "c.test"])),
        min_size=1,
    )
)
def test_the_standard_parser_agrees_on_plain_lists(pairs: list[tuple[str, str]]) -> None:
    value = ", ".join(f"Some One <{local}@{domain}>" for local, domain in pairs)
    header: Any = email.headerregistry.HeaderRegistry()("To", value)
    assert parse_mailboxes(value.encode()) == tuple(address.addr_spec for address in header.addresses)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"", ()),
        (b" \r\n\t", ()),
        (b",, a@b.test ,", ("a@b.test",)),
        (b"undisclosed-recipients:;", ()),
        (b'"alice"@b.test', ("alice@b.test",)),
        (b'"al\\ice"@b.test', ("alice@b.test",)),
        (b'"a b"@b.test', ('"a b"@b.test',)),
        (b'"victim@evil.test x"@ok.test', ('"victim@evil.test x"@ok.test',)),
        (b"a@[127.0.0.1]", ("a@[127.0.0.1]",)),
        (b"a@b.test <a@B.test>", ("a@B.test",)),
        (b"J\xe9r\xf4me <a@b.test>", ("a@b.test",)),
        ("jérôme@b.test".encode(), ("jérôme@b.test",)),
    ],
)
def test_read(value: bytes, found: tuple[str, ...]) -> None:
    assert parse_mailboxes(value) == found


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"alice@good.test(x)evil.test", "no comma"),
        (b"a@evil.test <b@good.test>", "two different addresses"),
        (b"a@b.test b@c.test", "no comma"),
        (b"a@good.test@evil.test", "no comma"),
        (b"Last, First <a@b.test>", "needs quotes"),
        (b"a@b.test (open", "not closed"),
        (b'"open <a@b.test>', "quoted string"),
        (b"<@relay.test:a@b.test>", "source route"),
        (b"<>", "no address"),
        (b"<a@b.test", "other than '>'"),
        (b"a @b.test", "unbroken"),
        (b"a(c)@b.test", "name without an address|unbroken"),
        (b"a..b@c.test", "unbroken"),
        (b"a@b.test.", "no comma"),
        (b"Group: a@b.test", "not closed with ';'"),
        (b"One: Two: a@b.test;;", "group within"),
        (b"a@b.test;", "no comma"),
        (b"Name", "name without an address"),
        (b"a\x00@b.test", "where a mailbox should be"),
        (b'"a\x00"@b.test', "quoted string"),
        (b"a@b.test (\x00)", "control character"),
        (b"a@b.test\nb@c.test", "no comma"),
        (b"\xe9@b.test", "not UTF-8"),
        ("a@evil.test＠b.test".encode(), "stands for '@'"),
        ("a\u202eb@c.test".encode(), "not printable"),
        ("a\u00a0b@c.test".encode(), "not printable"),
        (b'"a\r\n b"@c.test', "line break"),
    ],
)
def test_refused(value: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_mailboxes(value)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "@b",
        "a@",
        "a@b c",
        "a@b>",
        "<a@b>",
        "a@b\r\n",
        "a@b\r\nBcc: c@d",
        "a\x00@b",
        "\ud800@b",
        "a" * 320 + "@b",
    ],
)
def test_is_no_address(address: str) -> None:
    assert not is_address(address)


@pytest.mark.parametrize(
    "unit",
    [b"Foo Bar <a@b.test>, ", b"(", b"()", b"(a)", b'"', b'"" ', b'\\"', b",", b" ", b"\r\n ", b"a.", b"g:;,", b"a@b,"],
)
def test_megabytes_are_read_in_one_pass(unit: bytes) -> None:
    # A reader that goes back and forth, or calls itself for each comment, would not come to the end of this.
    value = unit * (2_000_000 // len(unit))
    try:
        assert len(parse_mailboxes(value)) in (0, 2_000_000 // len(unit))
    except ValueError as error:
        assert len(str(error)) < 200
