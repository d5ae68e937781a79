"""APOP (RFC 1939 section 7): the password stays at home, and a digest of it with the greeting's timestamp goes."""

from __future__ import annotations

import hashlib
import re

#: More than any server's; RFC 1939 section 3 allows 512 octets to a whole reply.
MAX_TIMESTAMP_BYTES = 255

# A timestamp is a msg-id of RFC 822 section 6.1. Nothing else is ever hashed with the password: who can choose the
# octets can learn the password from colliding digests (CVE-2007-1558). Of quoted strings only printable ones are taken.
_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_QUOTED = rb'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_LITERAL = rb"\[(?:[ -Z^-~]|\\[ -~])*\]"
_WORD = rb"(?:" + _ATOM + rb"|" + _QUOTED + rb")"
_PART = rb"(?:" + _ATOM + rb"|" + _LITERAL + rb")"
_MSG_ID = re.compile(rb"<" + _WORD + rb"(?:\." + _WORD + rb")*@" + _PART + rb"(?:\." + _PART + rb")*>\Z")

_BRACKETS = re.compile(rb"<[^<>]*>")


def has_brackets(greeting: bytes) -> bool:
    """Whether there is what looks like a timestamp."""
    return _BRACKETS.search(greeting) is not None


def timestamp_of(greeting: bytes) -> bytes:
    """The timestamp in a greeting, with its angle brackets: the last msg-id in it; empty where there is none."""
    for found in reversed(_BRACKETS.findall(greeting)):
        if len(found) <= MAX_TIMESTAMP_BYTES and _MSG_ID.match(found):
            return bytes(found)
    return b""


def digest(timestamp: bytes, password: str) -> str:
    """What the server is given instead of the password, in hexadecimal digits."""
    return hashlib.md5(timestamp + password.encode()).hexdigest()
