"""Addresses as the suppression list compares them: one form for each, whatever case or quotes it is written in."""

from __future__ import annotations

import re
import unicodedata

_NEEDLESSLY_QUOTED = re.compile(r'"((?:[^"\\@.\s(),:;<>\[\]]+)(?:\.[^"\\@.\s(),:;<>\[\]]+)*)"')


def folded(address: str) -> str:
    """The key of an address whose domain is in ASCII: small letters, no quotes that it does not need.

    RFC 5321 section 2.4 leaves the case of a local part to its host; hardly any host knows two mailboxes by it.
    """
    local, _, domain = address.rpartition("@")
    quoted = _NEEDLESSLY_QUOTED.fullmatch(local)
    local = quoted[1] if quoted is not None else local
    local = local.lower() if local.isascii() else unicodedata.normalize("NFC", local.lower())
    return f"{local}@{domain.lower()}"


def keys_of(address: str) -> tuple[str, str]:
    """The keys of the entries that would suppress a recipient: its own, and that of its domain."""
    key = folded(address)
    return key, key.rpartition("@")[2]
