"""Heads of replies of HTTP proxies: read in one go, whatever stands in them."""

from __future__ import annotations

import pytest

from postroom.net.http_connect import Head

BEGIN = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: "


@pytest.mark.parametrize(
    ("value", "schemes"),
    [
        (b' \tBasic realm="a, NTLM b", NTLM TlRM \t', {"basic": "", "ntlm": "TlRM"}),
        (b'Basic realm="say \\"hi\\", NTLM x", Negotiate', {"basic": "", "negotiate": ""}),
        (b'Basic realm="without an end, NTLM x', {"basic": ""}),
        (b"", {}),
    ],
)
def test_the_schemes_that_are_offered(value: bytes, schemes: dict[str, str]) -> None:
    assert Head.parse(BEGIN + value + b"\r\n\r\n").challenges == schemes


@pytest.mark.parametrize("value", [b"Basic" + b" " * 400_000 + b"x", b"Basic " + b'"\\' * 200_000])
def test_a_head_that_is_made_to_be_read_slowly(value: bytes) -> None:
    """Were each place in it looked at from every other one, this would go on for hours."""
    assert Head.parse(BEGIN + value + b"\r\n\r\n").challenges.keys() <= {"basic"}
