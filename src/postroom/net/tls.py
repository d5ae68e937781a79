"""Every TLS context of the program, client and server, is made here."""

from __future__ import annotations

import functools
import hashlib
import os
import ssl
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..model.account import OLD_TLS_VERSIONS, Account, Verification

_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
_NAMES = {"TLSv1": "1.0", "TLSv1.1": "1.1", "TLSv1.2": "1.2", "TLSv1.3": "1.3"}


@dataclass(frozen=True, slots=True)
class ClientTls:
    """TLS towards one server: `server_name` is asked for (SNI) and checked, `fingerprints` are its pins (SHA-256).

    A client offers all versions up to its newest: where `versions` have a gap, what lies in it is refused once chosen.
    """

    context: ssl.SSLContext
    server_name: str
    versions: tuple[str, ...]
    fingerprints: tuple[str, ...] = ()

    def refused_version(self, chosen: str | None) -> str:
        """Why `chosen`, as OpenSSL calls it, is not spoken; "" if it may be."""
        version = _NAMES.get(chosen or "", "")
        return "" if version in self.versions else f"it speaks TLS {version}, which this account does not allow"

    def refused_certificate(self, certificate: bytes | None) -> str:
        """Why `certificate` (DER), which the server has shown, is not taken; "" if it may be."""
        if not self.fingerprints:
            return ""
        found = hashlib.sha256(certificate or b"").hexdigest()
        if found in self.fingerprints:
            return ""
        return f"its SHA-256 fingerprint is {':'.join(found[n : n + 2] for n in range(0, 64, 2))}, which is not pinned"


def client_tls(account: Account) -> ClientTls:
    """TLS to the relay of `account`, as the account says.

    Raises:
        ValueError: the bundle, or the client certificate with its key, cannot be used.
    """
    return _tls_to(account, account.server_name or account.host)


def pop_tls(account: Account) -> ClientTls:
    """TLS to the server of its POP3 login, by the same rules.

    `server_name` and the client certificate are for the relay, and for no other host.

    Raises:
        ValueError: as `client_tls`.
    """
    host = account.pop_host
    if host == account.host:
        return client_tls(account)
    return _tls_to(replace(account, client_certificate="", client_key=""), host)


def _tls_to(account: Account, server_name: str) -> ClientTls:
    context = client_context(
        account.verification,
        account.ca_bundle,
        versions=account.tls_versions,
        certificate=account.client_certificate,
        key=account.client_key,
    )
    pinned = account.fingerprints if account.verification is Verification.FINGERPRINT else ()
    return ClientTls(context, server_name, account.tls_versions, pinned)


def https_tls(host: str, ca_bundle: str = "") -> ClientTls:
    """TLS to a web server: always verified, with `ca_bundle` (PEM) trusted besides the system's authorities."""
    return ClientTls(client_context(ca_bundle=ca_bundle, protocols=("http/1.1",)), host, ("1.2", "1.3"))


@functools.lru_cache(maxsize=64)
def client_context(
    verification: Verification = Verification.FULL,
    ca_bundle: str = "",
    *,
    versions: tuple[str, ...] = ("1.2", "1.3"),
    certificate: str = "",
    key: str = "",
    protocols: tuple[str, ...] = (),
) -> ssl.SSLContext:
    """The context for connections out: TLS 1.2 or later, certificate and host name checked.

    `ca_bundle` (PEM) is trusted besides the system's authorities. `Verification.OFF` leaves out the check, FINGERPRINT
    leaves it to `ClientTls.refused_certificate`. `certificate` (PEM, with its chain) is shown to a server that asks for
    one. With 1.0 or 1.1 among `versions`, OpenSSL's security level is lowered for this context alone.
    `protocols` are offered by ALPN (RFC 7301). The same arguments give the same context: making one reads all
    authorities of the system.

    Raises:
        ValueError: the bundle holds no certificate that can be read, or the client certificate cannot be used.
    """
    context = _context(ssl.Purpose.SERVER_AUTH)
    _limit_versions(context, versions)
    if ca_bundle:
        try:
            context.load_verify_locations(cadata=ca_bundle)
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"the CA bundle cannot be read: {error}") from None
    if verification is not Verification.FULL:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        try:
            _load_chain(context, f"{key.strip()}\n{certificate.strip()}\n")
        except ssl.SSLError as error:
            raise ValueError(f"the client certificate cannot be used: {error.reason or error}") from None
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def server_context(certificate: str, key: str = "", minimum: str = "1.2") -> ssl.SSLContext:
    """The context for a listener: TLS `minimum` or later, with the chain and key in the PEM files named.

    With 1.0 or 1.1, which sign with SHA-1, OpenSSL's security level is lowered for this context alone.

    Raises:
        OSError: a file cannot be read (ssl.SSLError, a kind of it: it does not hold what it should).
    """
    context = _context(ssl.Purpose.CLIENT_AUTH)
    _limit_versions(context, [version for version in _VERSIONS if version >= minimum])
    context.load_cert_chain(certificate, key or None)
    return context


def _context(purpose: ssl.Purpose) -> ssl.SSLContext:
    context = ssl.create_default_context(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _limit_versions(context: ssl.SSLContext, versions: Iterable[str]) -> None:
    allowed = sorted(versions)
    if not OLD_TLS_VERSIONS.isdisjoint(allowed):
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the old versions: whoever names them knows
        context.minimum_version = _VERSIONS[allowed[0]]
        if allowed[-1] != "1.3":
            context.maximum_version = _VERSIONS[allowed[-1]]


def _load_chain(context: ssl.SSLContext, pem: str) -> None:
    """Load key and certificates, which OpenSSL takes from a file only: one in memory, that no disk sees."""
    descriptor = os.memfd_create("client certificate")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii", closefd=False) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: "")
    finally:
        os.close(descriptor)
