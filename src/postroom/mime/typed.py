"""Addresses as people type them, `Ann Example <ann@example.org>`, turned into what stands on the wire."""

from __future__ import annotations

import re

import idna

from .address import Mailbox, is_address

_NAMED = re.compile(r"\s*(?P<name>[^<>]*?)\s*<(?P<address>[^<>]*)>\s*\Z")


def typed_mailbox(text: str) -> Mailbox:
    """The mailbox that `text` names; an internationalised domain in its ASCII form (UTS 46, IDNA 2008).

    Raises:
        ValueError: it is not one address; the message says so in words for people.
    """
    named = _NAMED.match(text)
    name, address = (named["name"], named["address"]) if named else ("", text)
    address = typed_address(address)
    if len(name) > 1 and name.startswith('"') and name.endswith('"'):
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return Mailbox(address, name)


def typed_address(text: str) -> str:
    """The address that `text` writes, `local@domain`, its domain in ASCII.

    Raises:
        ValueError: it is no address.
    """
    address = text.strip()
    local, at, domain = address.rpartition("@")
    if not at or not local or not domain:
        raise ValueError(f"{text!r} is not an address of the form name@example.org")
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"{text!r} has a domain that can't be written in DNS: {error}") from None
    address = f"{local}@{domain}"
    if not is_address(address):
        raise ValueError(f"{text!r} is not an address of the form name@example.org")
    return address
