"""Addresses or ValueError, never anything else; each address that is read is one, in its one spelling.

An input is the value of an address header.
"""

from __future__ import annotations

import email.policy
import re
from typing import Any

from postroom.mime.address import is_address, parse_mailboxes

TOKENS = (
    b"<", b">", b"@", b",", b";", b":", b"(", b")", b'"', b"\\", b" ", b"\t", b"\r\n ", b"\r\n", b".", b"[", b"]",
    b"a@b.test", b"<a@b.test>", b'"a b"@c.test', b"\xc3\xa9", b"\xef\xbc\xa0", b"\x00", b"=?utf-8?q?a=40b?=",
)  # fmt: skip

_QUOTED_OR_SO = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]', re.DOTALL)
_BARE = re.compile(r"[^\s<>,;:\x01]+@[^\s<>,;:\x01]+(?![^\s<>,;:])")


def seeds() -> list[bytes]:
    """Lists of mailboxes, good and bad."""
    return [
        b'"Doe, Jane" <jane@a.test>, bob@b.test (Bob), Group: c@d.test, <e@f.test>;, "x y"@[192.0.2.1]',
        b"Caf\xc3\xa9 <caf\xc3\xa9@xn--caf-dma.test>,\r\n\tundisclosed recipients:;",
        b"a@b.test <a@b.test>",
        b"a@b.test <c@d.test>",
        b'"a\\"b"@c.test, ((nested) comment) d@e.test',
        b"<@route.test:a@b.test>",
    ]


def one_input(data: bytes) -> None:
    """See the top."""
    try:
        addresses = parse_mailboxes(data)
    except ValueError as error:
        assert str(error)
        return
    for address in addresses:
        assert parse_mailboxes(address.encode()) == (address,)
        assert parse_mailboxes(b"x <" + address.encode() + b">") == (address,)
        assert len(address) > 320 or is_address(address)
        assert "\r" not in address and "\n" not in address
    bare = _QUOTED_OR_SO.sub("\x01", data.decode("latin-1"))
    read = {address.encode().decode("latin-1").lower() for address in addresses}
    for word in _BARE.findall(bare) if "(" not in bare else ():
        assert word.lower() in read, word  # nothing else in it looks like an address to another reader
    _compare(data, addresses)


def _compare(value: bytes, addresses: tuple[str, ...]) -> None:
    """The standard library sees no other address where it sees no fault."""
    if not value.isascii() or b"=?" in value or len(value) > 300:
        return
    try:
        text = value.decode().replace("\r\n", "").replace("\n", "")
        header: Any = email.policy.default.header_factory("To", text)
        seen = [(one.username, one.domain.lower()) for one in header.addresses]
    except Exception:  # its parser falls over many a broken header
        return
    if not header.defects:
        assert seen == [_parts(address) for address in addresses]


def _parts(address: str) -> tuple[str, str]:
    """Local part without its quotes, and domain; the standard library loses quotes that are needed."""
    found = re.fullmatch(r'(?:"((?:[^"\\]|\\.)*)"|([^@]*))@(.*)', address)
    assert found is not None
    local = found[2] if found[1] is None else re.sub(r"\\(.)", r"\1", found[1])
    return local, found[3].lower()
