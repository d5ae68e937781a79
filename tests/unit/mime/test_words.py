"""Encoded words read: what writing made, what other programs made, and what nobody should have made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mime.header import unstructured
from postroom.mime.words import encoded_words, read_text

texts = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=200)


@given(texts)
def test_what_was_written_is_read(text: str) -> None:
    value = unstructured("Subject", text)[len("Subject:") :]
    assert read_text(value) == text.strip()


@given(texts.filter(bool), st.integers(0, 75))
def test_words_keep_their_limits(text: str, room: int) -> None:
    words = encoded_words(text, room)
    assert all(len(word) <= 75 for word in words)
    assert len(words[0]) <= room or room < 28


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b" Hello\r\n world ", "Hello world"),
        (b"=?iso-8859-1?Q?caf=E9?=", "café"),
        (b"=?ISO-8859-1*de?q?M=FCller?= & Co", "Müller & Co"),
        (b"=?utf-8?b?w6k=?=\r\n =?utf-8?B?w6k?=", "éé"),
        (b"a =?utf-8?q?b?= c", "a b c"),
        ("raw é".encode(), "raw é"),
        (b"raw \xe9", "raw �"),
        (b"=?nobody-knows?q?x?=", "=?nobody-knows?q?x?="),
        (b"=?punycode?q?x?=", "=?punycode?q?x?="),
        (b"=?unicode_escape?q?=5Cx0a?=", "=?unicode_escape?q?=5Cx0a?="),
        (b"=?utf-8?b?!!!?=", ""),
        (b"=?utf-8?q?a=0D=0ABcc:_x?=", "aBcc: x"),
        (b"=?utf-8?q?a=00b?=", "a b"),
        (b"=?utf-8?q?open", "=?utf-8?q?open"),
        (b"\x1b[31mred", "[31mred"),
    ],
)
def test_read(value: bytes, text: str) -> None:
    assert read_text(value) == text


@given(st.binary(max_size=100) | st.from_regex(rb"(=\?|\?=|\?|q|b|utf-8|=| ){0,30}", fullmatch=True))
def test_anything_is_read_as_printable_text(value: bytes) -> None:
    assert not any(ord(character) < 32 for character in read_text(value))
