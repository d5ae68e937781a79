"""dkimpy as the judge of signatures, with the DNS records of given keys and no others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from postroom.mime.dkim import SigningKey, dns_record
from postroom.mime.head import scan

RSA = SigningKey("example.org", "one", rsa.generate_private_key(65537, 2048))
ED25519 = SigningKey("example.org", "two", Ed25519PrivateKey.generate())
BOTH = (RSA, ED25519)


def verified(message: bytes, keys: Iterable[SigningKey] = BOTH) -> list[bool]:
    """What it says of each signature, the topmost first, with the records of `keys` in DNS."""
    return verified_by({record.name: record.value for record in map(dns_record, keys)}, message)


def verified_by(records: Mapping[str, str], message: bytes) -> list[bool]:
    """The same with TXT records by name, without a dot at its end."""
    published = {f"{name}.".encode(): value.encode() for name, value in records.items()}
    count = sum(1 for name, _, _ in scan(message.partition(b"\r\n\r\n")[0]).fields if name == b"dkim-signature")
    return [_is_verified(message, at, published) for at in range(count)]


def _is_verified(message: bytes, at: int, published: Mapping[bytes, bytes]) -> bool:
    judge = dkim.DKIM(message)
    try:
        return bool(judge.verify(idx=at, dnsfunc=lambda name, timeout=5: published.get(name)))
    except dkim.ValidationError:
        return False


def pem(key: rsa.RSAPrivateKey | Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """As accounts keep it."""
    octets = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return octets.decode()
