"""Signed assertions instead of secrets (RFC 7523): of an application by its certificate, of a Google service account.

The library that signs is loaded where it is used.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from typing import Any

from ..model.account import Account, OAuth, OAuthProvider

#: How long an assertion may be used. Microsoft advises 5 to 10 minutes, Google takes an hour at most.
LIFETIME = timedelta(minutes=10)

#: By how much the clock of a server may be behind.
_SKEW = timedelta(seconds=30)


def client_assertion(oauth: OAuth, audience: str, now: datetime, nonce: str) -> str:
    """The JWT that shows whose application asks (RFC 7523 section 3).

    Microsoft wants PS256 and the SHA-256 of the certificate
    (learn.microsoft.com/entra/identity-platform/certificate-credentials), but tenants were seen that look for the SHA-1
    alone (github.com/MicrosoftDocs/entra-docs/pull/1301): both are there. Elsewhere RS256 is what everybody knows.

    Raises:
        ValueError: the key is of a kind that does not sign so.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256

    first = x509.load_pem_x509_certificates(oauth.certificate.encode())[0]
    thumbprints = {"x5t#S256": _base64(first.fingerprint(SHA256())), "x5t": _base64(first.fingerprint(SHA1()))}
    claims = {
        "aud": audience,
        "iss": oauth.client_id,
        "sub": oauth.client_id,
        "jti": nonce,
        "iat": int(now.timestamp()),
        "nbf": int((now - _SKEW).timestamp()),
        "exp": int((now + LIFETIME).timestamp()),
    }
    prefers_pss = oauth.provider is OAuthProvider.MICROSOFT
    return _signed(thumbprints, claims, oauth.certificate_key, prefers_pss=prefers_pss)


def service_account_assertion(account: Account, scope: str, now: datetime) -> str:
    """The JWT by which a service account asks for a token in the name of the account's mailbox
    (developers.google.com/identity/protocols/oauth2/service-account#authorizingrequests).

    Raises:
        ValueError: the key does not sign.
    """
    key = key_of(account)
    claims = {
        "iss": key["client_email"],
        "sub": account.username,
        "scope": scope,
        "aud": key["token_uri"],
        "iat": int(now.timestamp()),
        "exp": int((now + LIFETIME).timestamp()),
    }
    header = {"kid": key["private_key_id"]} if key.get("private_key_id") else {}
    return _signed(header, claims, key["private_key"], prefers_pss=False)


def key_of(account: Account) -> dict[str, str]:
    """The key file of the account's service account."""
    found: dict[str, str] = json.loads(account.oauth.service_account)
    return found


def _base64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _signed(header: dict[str, Any], claims: dict[str, Any], key: str, *, prefers_pss: bool) -> str:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, RSAKey

    loaded = load_pem_private_key(key.encode(), None)
    try:
        if isinstance(loaded, RSAPrivateKey):
            algorithm = "PS256" if prefers_pss else "RS256"
            return jwt.encode({"typ": "JWT", "alg": algorithm} | header, claims, RSAKey.import_key(key), [algorithm])
        if isinstance(loaded, EllipticCurvePrivateKey) and loaded.curve.name == "secp256r1" and not prefers_pss:
            return jwt.encode({"typ": "JWT", "alg": "ES256"} | header, claims, ECKey.import_key(key), ["ES256"])
    except JoseError as error:
        raise ValueError(f"the key can't sign: {error}") from None
    raise ValueError(f"the key is none that signs here: give an RSA key{'' if prefers_pss else ', or one of P-256'}")
