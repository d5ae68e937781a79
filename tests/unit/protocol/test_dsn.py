"""DSN parameters: what RFC 3461 and 6533 write is taken in one form, all else is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.protocol.smtp.dsn import parse_envid, parse_notify, parse_orcpt, parse_ret


@pytest.mark.parametrize(
    ("parse", "value", "form"),
    [
        (parse_ret, b"FULL", "FULL"),
        (parse_ret, b"hdrs", "HDRS"),
        (parse_envid, b"QQ314159", "QQ314159"),
        (parse_envid, b"a+20b+2B+3D", "a+20b+2B+3D"),
        (parse_envid, b"x" * 100, "x" * 100),
        (parse_notify, b"NEVER", "NEVER"),
        (parse_notify, b"never", "NEVER"),
        (parse_notify, b"DELAY,success,FAILURE", "SUCCESS,FAILURE,DELAY"),
        (parse_notify, b"FAILURE", "FAILURE"),
        (parse_orcpt, b"rfc822;Bob@b.test", "rfc822;Bob@b.test"),
        (parse_orcpt, b"RFC822;a+2Bb@b.test", "RFC822;a+2Bb@b.test"),
        (parse_orcpt, b"x400;/C+3Dde/", "x400;/C+3Dde/"),
        (parse_orcpt, "utf-8;é@b.test".encode(), "utf-8;\\x{E9}@b.test"),
        (parse_orcpt, b"UTF-8;\\x{E9}@b.test", "utf-8;\\x{E9}@b.test"),
        (parse_orcpt, "utf-8;用\\x{2B}@b".encode(), "utf-8;\\x{7528}\\x{2B}@b"),
        (parse_orcpt, "utf-8;\U00010400@b".encode(), "utf-8;\\x{10400}@b"),
        (parse_orcpt, b"utf-8;plain@b.test", "utf-8;plain@b.test"),
        (parse_orcpt, b"rfc822;+C3+A9+2Bx@b.test", "utf-8;\\x{E9}\\x{2B}x@b.test"),  # so Postfix writes it
    ],
)
def test_each_has_one_form(parse: Callable[[bytes | None], str], value: bytes, form: str) -> None:
    assert parse(value) == form


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (parse_ret, None),
        (parse_ret, b"BOTH"),
        (parse_ret, b"FULL,HDRS"),
        (parse_ret, "FULé".encode()),
        (parse_envid, None),
        (parse_envid, b"x" * 101),
        (parse_envid, b"a+2b"),  # hexadecimal digits are capitals
        (parse_envid, b"a+"),
        (parse_envid, b"a+0D+0AX"),  # a report would end a header line here
        (parse_envid, b"a+00"),
        (parse_envid, b"a+7F"),
        (parse_envid, b"a+C3+A9"),
        (parse_envid, "é".encode()),
        (parse_notify, None),
        (parse_notify, b"NEVER,SUCCESS"),
        (parse_notify, b"SUCCESS,NEVER"),
        (parse_notify, b"NEVER,NEVER"),
        (parse_notify, b"SUCCESS,SUCCESS"),
        (parse_notify, b"SUCCESS,"),
        (parse_notify, b",SUCCESS"),
        (parse_notify, b"SUCCESS, DELAY"),
        (parse_notify, b"ALWAYS"),
        (parse_orcpt, None),
        (parse_orcpt, b"Bob@b.test"),
        (parse_orcpt, b"x400;/C=de/"),  # "=" is written +3D
        (parse_orcpt, b";Bob@b.test"),
        (parse_orcpt, b"rfc822;"),
        (parse_orcpt, b"rfc822;Bob@b.test;x+0A"),
        (parse_orcpt, b"rfc822;a+0D+0ABcc:x"),
        (parse_orcpt, b"rfc 822;a@b"),
        (parse_orcpt, b"rfc822;" + b"x" * 494),
        (parse_orcpt, "rfc822;é@b.test".encode()),
        (parse_orcpt, b"rfc822;+C3x@b.test"),
        (parse_orcpt, b"rfc822;+C3+A9+0A@b.test"),
        (parse_orcpt, b"x400;+C3+A9"),
        (parse_orcpt, b"utf-8;\xff@b.test"),
        (parse_orcpt, b"utf-8;a+2Bb@b.test"),  # that is no xtext: RFC 6533 has \x{2B}
        (parse_orcpt, b"utf-8;a\\x{0A}b"),
        (parse_orcpt, b"utf-8;a\\x{D800}b"),
        (parse_orcpt, b"utf-8;a\\x{110000}b"),
        (parse_orcpt, b"utf-8;a\\x{e9}b"),
        (parse_orcpt, b"utf-8;a\\xE9b"),
        (parse_orcpt, b"utf-8;a\\b"),
        (parse_orcpt, "utf-8;a\u202eb".encode()),
    ],
)
def test_what_is_not_so_written_is_refused(parse: Callable[[bytes | None], str], value: bytes | None) -> None:
    with pytest.raises(ValueError, match="RET|ENVID|NOTIFY|ORCPT"):
        parse(value)


@given(
    st.one_of(
        st.binary(max_size=60), st.text(max_size=40).map(lambda text: b"utf-8;" + text.encode("utf-8", "replace"))
    )
)
def test_any_octets_become_printable_ascii_or_are_refused(value: bytes) -> None:
    for parse in (parse_ret, parse_envid, parse_notify, parse_orcpt):
        try:
            form = parse(value)
        except ValueError:
            continue
        assert form.isascii() and form.isprintable() and " " not in form
        assert parse(form.encode()) == form
