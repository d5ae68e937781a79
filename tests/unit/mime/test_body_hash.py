"""The hash of a body while it streams by: dkimpy, which has the whole body, finds the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from dkim.canonicalization import Relaxed
from hypothesis import given
from hypothesis import strategies as st

from postroom.mime.body_hash import BodyHash

PARTS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b" \t ", b"a", b"b c", b".", b"\x00", b"\xff\xfe"])
BODIES = st.lists(PARTS, max_size=40).map(b"".join)
CUTS = st.lists(st.integers(0, 7), max_size=60)


def judged(body: bytes) -> bytes:
    """dkimpy's hash of the body as it goes over the wire, where the last line ends with CRLF."""
    if body and not body.endswith(b"\r\n"):
        body += b"\r\n"
    return hashlib.sha256(Relaxed.canonicalize_body(body)).digest()


def pieces(body: bytes, cuts: list[int]) -> Iterator[bytes]:
    at = 0
    for size in cuts:
        yield body[at : at + size]
        at += size
    yield body[at:]


def hashed(body: bytes, cuts: list[int]) -> bytes:
    body_hash = BodyHash()
    for piece in pieces(body, cuts):
        body_hash.feed(piece)
    return body_hash.digest()


@given(BODIES, CUTS)
def test_dkimpy_finds_the_same_hash(body: bytes, cuts: list[int]) -> None:
    assert hashed(body, cuts) == judged(body)


@given(st.binary(max_size=60), CUTS)
def test_any_octets_are_hashed_as_lines(octets: bytes, cuts: list[int]) -> None:
    body = octets.replace(b"\r", b"").replace(b"\n", b"\r\n")
    assert hashed(body, cuts) == judged(body)


@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\n\r\n", b" \t\r\n\t\r\n ", b" "])
def test_a_body_without_text_has_the_hash_of_nothing(body: bytes) -> None:
    # RFC 6376 section 3.4.4 gives this value in base64.
    assert hashed(body, []).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def hashed_in_chunks(body: bytes) -> bytes:
    body_hash = BodyHash()
    for at in range(0, len(body), 256 * 1024):
        body_hash.feed(body[at : at + 256 * 1024])
        assert len(body_hash._held) <= 2
    return body_hash.digest()


@pytest.mark.parametrize(
    "unit", [b"\r\n", b" \r\n", b"a  ", b"\t \r\na", b"x\r\n", b"line of text \r\n", b"\r\n\r\n\r\n\t"]
)
@pytest.mark.parametrize("end", [b"", b"x"])
def test_megabytes_of_one_thing_are_hashed_in_one_pass(unit: bytes, end: bytes) -> None:
    body = unit * (3_000_000 // len(unit)) + end
    assert hashed_in_chunks(body) == judged(body)


@pytest.mark.parametrize("unit", [b" ", b"\t", b"\t  "])
def test_megabytes_of_white_space_are_hashed_in_one_pass(unit: bytes) -> None:
    # dkimpy would look at each octet of it from each one before.
    body = unit * (20_000_000 // len(unit))
    assert hashed_in_chunks(body) == judged(b"")
    assert hashed_in_chunks(body + b"x") == judged(b" x")
    assert hashed_in_chunks(b"x" + body) == judged(b"x")
