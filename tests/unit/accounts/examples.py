"""Certificates and keys for accounts, made once for all tests."""

from __future__ import annotations

import functools
import json
from typing import Any

import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)


def _pem(key: Any, passphrase: str = "") -> str:
    lock = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    text: str = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock).decode().strip()
    return text


@functools.cache
def certificate_and_key(number: int = 0, kind: trustme.KeyType = trustme.KeyType.RSA) -> tuple[str, str]:
    """A certificate and its key, as PEM."""
    made = trustme.CA().issue_cert(f"client{number}.example", key_type=kind)
    return made.cert_chain_pems[0].bytes().decode().strip(), made.private_key_pem.bytes().decode().strip()


@functools.cache
def rsa_key(bits: int = 2048) -> str:
    """An RSA key, as PEM."""
    return _pem(generate_private_key(65537, bits))


@functools.cache
def ed25519_key(passphrase: str = "") -> str:
    """An Ed25519 key, as PEM."""
    return _pem(Ed25519PrivateKey.generate(), passphrase)


def service_account() -> str:
    """What Google's console gives as the key of a service account."""
    token_uri = "https://oauth2.googleapis.com/token"
    fields = {"client_email": "a@b.iam.gserviceaccount.com", "private_key": rsa_key(), "token_uri": token_uri}
    return json.dumps({"type": "service_account"} | fields)
