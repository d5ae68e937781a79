"""Every TLS context of the program, client and server, is made here."""

from __future__ import annotations

import functools
import ssl
import warnings

from ..model.account import Verification

_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


def client_context(verification: Verification = Verification.FULL, ca_bundle: str = "") -> ssl.SSLContext:
    """The context for connections out: TLS 1.2 or later, certificate and host name checked.

    `ca_bundle` (PEM) is trusted besides the system's authorities. Only `Verification.OFF` leaves out the check. The
    same arguments give the same context: making one reads all authorities of the system.

    Raises:
        ValueError: the bundle holds no certificate that can be read.
    """
    return _cached_client_context(verification, ca_bundle)


def server_context(certificate: str, key: str = "", minimum: str = "1.2") -> ssl.SSLContext:
    """The context for a listener: TLS `minimum` or later, with the chain and key in the PEM files named.

    With 1.0 or 1.1, which sign with SHA-1, OpenSSL's security level is lowered for this context alone.

    Raises:
        OSError: a file cannot be read (ssl.SSLError, a kind of it: it does not hold what it should).
    """
    context = _context(ssl.Purpose.CLIENT_AUTH)
    if minimum in ("1.0", "1.1"):
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the old versions: whoever names them knows
        context.minimum_version = _VERSIONS[minimum]
    context.load_cert_chain(certificate, key or None)
    return context


@functools.lru_cache(maxsize=64)
def _cached_client_context(verification: Verification, ca_bundle: str) -> ssl.SSLContext:
    context = _context(ssl.Purpose.SERVER_AUTH)
    if ca_bundle:
        try:
            context.load_verify_locations(cadata=ca_bundle)
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"the CA bundle cannot be read: {error}") from None
    if verification is Verification.OFF:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _context(purpose: ssl.Purpose) -> ssl.SSLContext:
    context = ssl.create_default_context(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
