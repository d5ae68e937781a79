"""Every TLS context of the program, client and server, is made here."""

from __future__ import annotations

import functools
import ssl

from ..model.account import Verification


def client_context(verification: Verification = Verification.FULL, ca_bundle: str = "") -> ssl.SSLContext:
    """The context for connections out: TLS 1.2 or later, certificate and host name checked.

    `ca_bundle` (PEM) is trusted besides the system's authorities. Only `Verification.OFF` leaves out the check. The
    same arguments give the same context: making one reads all authorities of the system.

    Raises:
        ValueError: the bundle holds no certificate that can be read.
    """
    return _cached_client_context(verification, ca_bundle)


def server_context(certificate: str, key: str = "") -> ssl.SSLContext:
    """The context for a listener: TLS 1.2 or later, with the chain and key in the PEM files named.

    Raises:
        OSError: a file cannot be read (ssl.SSLError, a kind of it: it does not hold what it should).
    """
    context = _context(ssl.Purpose.CLIENT_AUTH)
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
