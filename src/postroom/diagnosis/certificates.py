"""What a TLS connection shows of itself: version, cipher, and the certificates that the other side sent."""

from __future__ import annotations

import hashlib
import ssl
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

#: Certificates of a chain that are shown.
_MOST = 10

#: Names of a certificate that are shown.
_MOST_NAMES = 20


def tls_facts(tls: ssl.SSLObject, now: datetime) -> dict[str, Any]:
    """Version, cipher and chain of a connection as plain values; the relay's own certificate stands first."""
    cipher = tls.cipher()
    facts: dict[str, Any] = {"version": tls.version() or "", "cipher": cipher[0] if cipher is not None else ""}
    chain = [certificate_facts(one, now) for one in _chain(tls)[:_MOST]]
    if chain:
        facts["chain"] = chain
        facts["expires"] = chain[0].get("until", "")
        facts["days_left"] = chain[0].get("days_left")
        facts["sha256"] = chain[0]["sha256"]
    return facts


def _chain(tls: ssl.SSLObject) -> list[bytes]:
    """The certificates (DER) as they were sent; Python tells of more than the first one publicly since 3.13 only."""
    source = getattr(tls, "get_unverified_chain", None) or getattr(
        getattr(tls, "_sslobj", None), "get_unverified_chain", None
    )
    sent = source() if source is not None else None
    if sent:
        return [one if isinstance(one, bytes) else ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in sent]
    own = tls.getpeercert(binary_form=True)
    return [own] if own else []


def certificate_facts(der: bytes, now: datetime) -> dict[str, Any]:
    """Who it is for, who signed it, and until when."""
    from cryptography import x509

    facts: dict[str, Any] = {"sha256": hashlib.sha256(der).hexdigest()}
    try:
        certificate = x509.load_der_x509_certificate(der)
        until = certificate.not_valid_after_utc
        return facts | {
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "names": _names(certificate),
            "from": certificate.not_valid_before_utc.date().isoformat(),
            "until": until.date().isoformat(),
            "days_left": (until - now).days,
        }
    except ValueError as error:  # there are certificates in use that the library finds fault with
        return facts | {"unreadable": str(error)[:200]}


def _names(certificate: Certificate) -> list[str]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    names = [str(one) for one in found.get_values_for_type(x509.DNSName)]
    names += [str(one) for one in found.get_values_for_type(x509.IPAddress)]
    return names[:_MOST_NAMES]
