"""A relay that speaks TLS from the first octet, over blocking sockets: asyncio's servers lose their alerts."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import socket
import ssl
import threading
import warnings
from typing import Any

import trustme

_NUMBERS = {"1.0": ssl.TLSVersion.TLSv1, "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_DAY = datetime.timedelta(days=1)
_NOW = datetime.datetime.now(datetime.UTC)

EXPIRED: dict[str, Any] = {"not_before": _NOW - 9 * _DAY, "not_after": _NOW - 2 * _DAY}
NOT_YET_VALID: dict[str, Any] = {"not_before": _NOW + 2 * _DAY, "not_after": _NOW + 9 * _DAY}


def served(issued: trustme.LeafCert, *versions: str) -> ssl.SSLContext:
    """A server's context with this certificate, for these versions alone (the oldest and the newest)."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(made)
    if versions:
        made.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            made.minimum_version, made.maximum_version = _NUMBERS[versions[0]], _NUMBERS[versions[-1]]
    return made


def asking(authority: trustme.CA, issued: trustme.LeafCert, *versions: str) -> ssl.SSLContext:
    """The same, for clients that show a certificate by `authority`."""
    made = served(issued, *versions)
    made.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(made)
    return made


def fingerprint(issued: trustme.LeafCert) -> str:
    """The SHA-256 of a certificate."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())).hexdigest()


def pem(authority: trustme.CA) -> str:
    """The authority's own certificate."""
    return authority.cert_pem.bytes().decode()


def own_certificate(authority: trustme.CA) -> dict[str, str]:
    """A client's certificate and key, as the fields of an account."""
    issued = authority.issue_cert("gateway.test")
    chain = "".join(one.bytes().decode() for one in issued.cert_chain_pems)
    return {"client_certificate": chain, "client_key": issued.private_key_pem.bytes().decode()}


class TlsRelay:
    """`with TlsRelay(context) as relay`: one connection after the other; `taken` has each RCPT."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._serving: socket.socket | None = None
        self.port: int = self._listener.getsockname()[1]
        self.taken: list[str] = []

    def __enter__(self) -> TlsRelay:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        while self._thread.is_alive():
            serving = self._serving
            if serving is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(serving, socket.SHUT_RDWR)  # wakes the thread, which has the TLS of it
            self._thread.join(0.1)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(60)
            try:
                with connection, self._context.wrap_socket(connection, server_side=True) as self._serving:
                    self._talk(self._serving)
            except OSError:
                pass  # the client, or we, did not like the other
            self._serving = None

    def _talk(self, secured: ssl.SSLSocket) -> None:
        secured.sendall(b"220 relay.test ESMTP\r\n")
        with secured.makefile("rb") as reader:
            while line := reader.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    secured.sendall(b"354 go on\r\n")
                    while reader.readline() not in (b".\r\n", b""):
                        pass
                elif verb == b"RCPT":
                    self.taken.append(line.decode().strip())
                secured.sendall(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
                if verb == b"QUIT":
                    return
