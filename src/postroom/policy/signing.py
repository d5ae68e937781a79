"""What an account signs with (DKIM, SPEC section 2.5), and what it leaves unsigned."""

from __future__ import annotations

from dataclasses import dataclass

from ..mime.dkim import SigningKey, load_key
from ..model.account import Account, AccountKind

#: Relays, by the end of their names, that replace header fields: what is signed of these would be broken on the way.
_REPLACED = {".amazonaws.com": frozenset({b"date", b"message-id"})}  # SES says so of its manual DKIM signing
_NONE: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signature names: who is asked for the key, and which one."""

    domain: str
    selector: str
    algorithm: str


def signed_with(account: Account) -> tuple[Signature, ...]:
    """What the signatures of `account` name, in their order; the keys themselves are not looked at."""
    dkim = account.dkim
    found = []
    if dkim.rsa_key:
        found.append(Signature(dkim.domain, dkim.selector, "rsa-sha256"))
    if dkim.ed25519_key:
        found.append(Signature(dkim.domain, dkim.ed25519_selector or dkim.selector, "ed25519-sha256"))
    return tuple(found)


def signs(account: Account) -> bool:
    """Whether mail of `account` is signed. What goes by Graph, Exchange Online writes anew, and signs."""
    return account.kind is not AccountKind.GRAPH and bool(account.dkim.rsa_key or account.dkim.ed25519_key)


def signing_keys(account: Account) -> tuple[SigningKey, ...]:
    """The keys of `account`, parsed; RSA comes first, since some verifiers look at the topmost signature alone.

    Raises:
        ValueError: a key can't be used; the text never quotes it.
    """
    dkim = account.dkim
    keys = []
    if dkim.rsa_key:
        keys.append(SigningKey(dkim.domain, dkim.selector, load_key(dkim.rsa_key)))
    if dkim.ed25519_key:
        keys.append(SigningKey(dkim.domain, dkim.ed25519_selector or dkim.selector, load_key(dkim.ed25519_key)))
    return tuple(keys)


def replaced_fields(account: Account) -> frozenset[bytes]:
    """Header fields, in small letters, that the relay of `account` replaces."""
    return next((fields for end, fields in _REPLACED.items() if account.host.endswith(end)), _NONE)
