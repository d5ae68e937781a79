"""To, Cc and Bcc of a message that somebody else made, made equal to an envelope: for a system that delivers to
whomever these fields name. No octet of other fields is changed, and of these no more than that takes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

import idna

from .address import FoundMailbox, Mailbox, find_mailboxes, parse_mailboxes
from .head import edit, scan
from .header import addresses

#: The fields that name recipients (RFC 5322 section 3.6.3); those of a resending (3.6.6) tell of an earlier one.
NAMING_RECIPIENTS = (b"to", b"cc", b"bcc")


@dataclass(frozen=True, slots=True)
class Addressed:
    """A head whose To, Cc and Bcc name the recipients of the envelope and nobody else.

    `taken_out` are the addresses that they named besides, as written; `unreadable` the fields that can't be read with
    certainty and were taken out whole; `hidden` the recipients whom no field named: they stand in Bcc now.
    """

    head: bytes
    taken_out: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    @property
    def is_trimmed(self) -> bool:
        """Whether something was taken out."""
        return bool(self.taken_out or self.unreadable)


def addressed_to(head: bytes, recipients: Sequence[str]) -> Addressed:
    """`head` with To, Cc and Bcc for `recipients` alone; linear.

    Raises:
        ValueError: a recipient is no address that can stand in a header (see `address.is_address`).
    """
    wanted = {same(recipient) for recipient in recipients}
    named: set[str] = set()
    taken_out: list[str] = []
    unreadable: list[str] = []
    pieces: list[bytes] = []
    at = 0
    for name, start, end in scan(head).fields:
        if name not in NAMING_RECIPIENTS:
            continue
        field = head[start:end]
        try:
            new = _field(field, wanted, named, taken_out)
        except ValueError:
            unreadable.append(name.decode("ascii").title())
            new = b""
        if new is not field:
            pieces += (head[at:start], new)
            at = end
    pieces.append(head[at:])
    hidden = [recipient for recipient in recipients if same(recipient) not in named]
    made = b"".join(pieces)
    if hidden:
        made = edit(made, append=addresses("Bcc", [Mailbox(recipient) for recipient in hidden]))
    return Addressed(made, tuple(dict.fromkeys(taken_out)), tuple(unreadable), tuple(hidden))


def recipients_named(head: bytes) -> tuple[str, ...]:
    """The addresses in To, Cc and Bcc, in the order of the fields; of a field that can't be read, none."""
    found: list[str] = []
    fields = scan(head)
    for name, start, end in fields.fields:
        if name in NAMING_RECIPIENTS:
            try:
                found += parse_mailboxes(head[start:end].partition(b":")[2])
            except ValueError:
                continue
    return tuple(found)


@lru_cache(maxsize=4096)
def same(address: str) -> str:
    """One form for all spellings of an address: small letters, the domain as the DNS has it (RFC 5890)."""
    local, _, domain = address.rpartition("@")
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except UnicodeError:  # idna.IDNAError is one
            domain = unicodedata.normalize("NFC", domain)
    local = local if local.isascii() else unicodedata.normalize("NFC", local)
    return f"{local.lower()}@{domain.lower()}"


def _field(field: bytes, wanted: Set[str], named: set[str], taken_out: list[str]) -> bytes:
    """`field` itself, or made anew with the mailboxes of `wanted` alone; empty where it names nobody any more."""
    label, colon, value = field.partition(b":")
    found = find_mailboxes(value)
    kept = [at for at, one in enumerate(found) if same(one.address) in wanted]
    named.update(same(found[at].address) for at in kept)
    if len(kept) == len(found):
        return field
    taken_out += [one.address for one in found if same(one.address) not in wanted]
    return label + colon + _only(value, found, kept) if kept else b""


def _only(value: bytes, found: Sequence[FoundMailbox], kept: Sequence[int]) -> bytes:
    """The mailboxes at `kept`, as they stand; neighbours keep what is between them, all others get a line each.

    A group is written without its name: it would be another group.
    """
    is_grouped = any(one.in_group for one in found)
    pieces: list[bytes] = []
    before = -1
    for at in kept:
        one = found[at]
        if before < 0:
            pieces.append(b" ")
        elif at == before + 1 and not is_grouped:
            pieces.append(value[found[before].end : one.start])
        else:
            pieces.append(b",\r\n ")
        pieces.append(value[one.start : one.end])
        before = at
    is_last = before == len(found) - 1 and not is_grouped
    pieces.append(value[found[-1].end :] if is_last else b"\r\n")
    return b"".join(pieces)
