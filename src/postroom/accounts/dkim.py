"""DKIM keys of accounts: made, described as fields, and their DNS records (SPEC section 2.5)."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Fault, InvalidInput
from ..mime.dkim import DnsRecord, PrivateKey, dns_record
from ..model import fields as read
from ..model.account import Account, KeyKind
from ..policy.signing import signing_keys
from .fields import ACCOUNT_FIELDS, DEFAULTS
from .pem import RSA_BITS


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """A key as it is shown: never its private half."""

    algorithm: str
    selector: str
    record: DnsRecord


def new_keys(account: Account, domain: str, selector: str, kind: KeyKind) -> dict[str, object]:
    """The fields that give `account` new keys; of two, the Ed25519 key gets the selector with `-ed25519` behind it.

    Takes a good part of a second for RSA.

    Raises:
        InvalidInput: domain or selector is none, or the selector is in use: mail under way is verified by its record.
    """
    named = read.parse_fields({"dkim_domain": domain, "dkim_selector": selector}, ACCOUNT_FIELDS, "account", DEFAULTS)
    domain, selector = named["dkim_domain"], named["dkim_selector"]
    with_rsa, with_ed25519 = kind is not KeyKind.ED25519, kind is not KeyKind.RSA
    second = f"{selector}-ed25519" if with_rsa and with_ed25519 else ""
    _refuse_used(account, domain, [selector, second])
    return {
        "dkim_domain": domain,
        "dkim_selector": selector,
        "dkim_rsa_key": _pem(_new_rsa()) if with_rsa else None,
        "dkim_ed25519_selector": second,
        "dkim_ed25519_key": _pem(_new_ed25519()) if with_ed25519 else None,
    }


#: The fields that take an account's keys away.
NO_KEYS: dict[str, object] = dict.fromkeys(name for name in ACCOUNT_FIELDS if name.startswith("dkim_"))


def published_keys(account: Account) -> tuple[PublishedKey, ...]:
    """The keys of `account` with their records.

    Raises:
        InvalidInput: a key that is stored can't be read.
    """
    try:
        keys = signing_keys(account)
    except ValueError as error:
        raise InvalidInput(Fault("dkim", f"a key of account {account.name} {error}", "make new ones")) from None
    return tuple(PublishedKey(key.algorithm, key.selector, dns_record(key)) for key in keys)


def _refuse_used(account: Account, domain: str, selectors: list[str]) -> None:
    dkim = account.dkim
    if not (dkim.rsa_key or dkim.ed25519_key) or dkim.domain != domain:
        return
    for selector in filter(None, selectors):
        if selector in (dkim.selector, dkim.ed25519_selector):
            fault = f"{selector} is in use, and mail under way is verified by its record"
            raise InvalidInput(Fault("selector", fault, "choose another for the new key"))


def _new_rsa() -> PrivateKey:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)


def _new_ed25519() -> PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


def _pem(key: PrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization

    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode("ascii")
