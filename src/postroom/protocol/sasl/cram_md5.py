"""The client's side of CRAM-MD5 (RFC 2195)."""

from __future__ import annotations

import hmac

from . import SaslError


class CramMd5Client:
    """CRAM-MD5: the server's challenge, hashed with the password. Nothing shows that it is the right server."""

    mechanism = "CRAM-MD5"
    sends_clear_password = False
    takes_long = False

    def __init__(self, login: str, password: str) -> None:
        if not login or not password:
            raise SaslError("CRAM-MD5 needs a user name and a password")
        self.secrets: tuple[str, ...] = ()
        self._login = login
        self._password = password.encode()
        self._answered = False

    def initial_response(self) -> bytes | None:
        """None: the server speaks first."""
        return None

    def respond(self, challenge: bytes) -> bytes:
        """The user name and the digest, once."""
        if self._answered:
            raise SaslError("the server asks for more than CRAM-MD5 has")
        if not challenge:
            raise SaslError("the server's challenge is empty, so that anybody could say it again")
        self._answered = True
        digest = hmac.digest(self._password, challenge, "md5").hex()
        self.secrets = (digest,)
        return f"{self._login} {digest}".encode()

    def accepted(self) -> None:
        """Nothing is asked of the server."""
