"""Certificates and keys as PEM, and Google's service account as JSON: read once when given, never quoted in a fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..model.fields import FieldFault

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

#: Longest text of a certificate bundle or key.
LONGEST = 1024 * 1024

#: Sizes of an RSA key that DKIM verifiers will always take (RFC 8301 section 3.2).
RSA_BITS = 2048
MOST_RSA_BITS = 4096


def _text(value: object, mend: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise FieldFault("is not text", mend)
    if len(value) > LONGEST:
        raise FieldFault(f"is {len(value)} characters long", f"write at most {LONGEST}")
    return value.strip()


def certificates(value: object) -> str:
    """Certificates, or nothing."""
    text = _text(value, "give certificates as PEM")
    if text:
        from cryptography import x509  # here: heavy, and seldom needed

        try:
            x509.load_pem_x509_certificates(text.encode())
        except ValueError:
            raise FieldFault("holds no certificate that can be read", "give certificates as PEM") from None
    return text


def private_key(value: object) -> str:
    """A private key of any kind, or nothing."""
    text = _text(value, "give the key as PEM")
    if text:
        _load(text)
    return text


def rsa_key(value: object) -> str:
    """An RSA key fit for DKIM, or nothing."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    def fits(key: object) -> str:
        if not isinstance(key, RSAPrivateKey):
            return "is not an RSA key"
        if key.key_size > MOST_RSA_BITS:
            return f"has {key.key_size} bits, which verifiers need not read"
        return "" if key.key_size >= RSA_BITS else f"has {key.key_size} bits, which verifiers refuse or soon will"

    return _key_of_kind(value, fits, f"give an RSA key of {RSA_BITS} bits as PEM: openssl genrsa {RSA_BITS}")


def ed25519_key(value: object) -> str:
    """An Ed25519 key, or nothing."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    def fits(key: object) -> str:
        return "" if isinstance(key, Ed25519PrivateKey) else "is not an Ed25519 key"

    return _key_of_kind(value, fits, "give an Ed25519 key as PEM: openssl genpkey -algorithm ed25519")


def _key_of_kind(value: object, fits: Callable[[object], str], mend: str) -> str:
    text = _text(value, mend)
    if text:
        fault = fits(_load(text))
        if fault:
            raise FieldFault(fault, mend)
    return text


@lru_cache(maxsize=64)  # to prove that an RSA key is one takes a twentieth of a second, and every edit reads it again
def _load(text: str) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(text.encode(), None)
    except TypeError:
        mend = "take the passphrase off (openssl pkey -in KEY): it is sealed here all the same"
        raise FieldFault("is locked with a passphrase", mend) from None
    except (ValueError, UnsupportedAlgorithm):
        mend = "give it as PEM, with its BEGIN and END lines"
        if "BEGIN CERTIFICATE" in text:
            raise FieldFault("is a certificate, not its private key", mend) from None
        raise FieldFault("holds no private key that can be read", mend) from None


def are_a_pair(certificate: str, key: str) -> bool:
    """Whether `key` belongs to the first of the certificates."""
    from cryptography import x509

    first = x509.load_pem_x509_certificates(certificate.encode())[0]
    return first.public_key() == _load(key).public_key()


def signs(key: str, also_elliptic: bool) -> bool:
    """Whether `key` can sign for an application: by RSA, or by ECDSA with P-256 where that is understood."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    found = _load(key)
    is_elliptic = isinstance(found, EllipticCurvePrivateKey) and found.curve.name == "secp256r1"
    return isinstance(found, RSAPrivateKey) or (also_elliptic and is_elliptic)


def service_account(value: object) -> str:
    """The key file of a Google service account, or nothing."""
    mend = "give the JSON file that Google's console made for the service account"
    text = _text(value, mend)
    if not text:
        return ""
    try:
        found: Any = json.loads(text)
    except ValueError:
        raise FieldFault("is not JSON", mend) from None
    if not isinstance(found, dict) or found.get("type") != "service_account":
        raise FieldFault("is not the key of a service account", mend)
    missing = [name for name in ("client_email", "private_key", "token_uri") if not isinstance(found.get(name), str)]
    if missing:
        raise FieldFault(f"has no {missing[0]}", mend)
    _load(found["private_key"])
    return text
