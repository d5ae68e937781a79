"""Addresses as people type them."""

from __future__ import annotations

import pytest

from postroom.mime.address import Mailbox
from postroom.mime.typed import typed_mailbox


@pytest.mark.parametrize(
    ("text", "mailbox"),
    [
        ("ann@example.org", Mailbox("ann@example.org")),
        (" Ann Example <ann@example.org> ", Mailbox("ann@example.org", "Ann Example")),
        ('"Example, \\"Ann\\"" <ann@example.org>', Mailbox("ann@example.org", 'Example, "Ann"')),
        ("<ann@example.org>", Mailbox("ann@example.org")),
        ("ann@b\u00fccher.example", Mailbox("ann@xn--bcher-kva.example")),
    ],
)
def test_mailboxes(text: str, mailbox: Mailbox) -> None:
    assert typed_mailbox(text) == mailbox


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann",
        "@example.org",
        "ann@",
        "ann@evil.example x@ok.example",
        "Ann <ann@evil.example> <b@ok.example>",
        "ann@example.org(x)evil.example",
        "ann@exa\u0000mple.org",
        "ann@\u2100.example\u3002\u3002",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|domain"):
        typed_mailbox(text)
