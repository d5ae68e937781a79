"""XOAUTH2 and OAUTHBEARER, the client's side: a token instead of a password.

XOAUTH2 is Google's (developers.google.com/workspace/gmail/imap/xoauth2-protocol), which Microsoft speaks too;
OAUTHBEARER is RFC 7628.
"""

from __future__ import annotations

import json
import re

from . import SaslError

XOAUTH2 = "XOAUTH2"
OAUTHBEARER = "OAUTHBEARER"

#: RFC 6750 section 2.1: what a bearer token is made of.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*\Z")

#: RFC 7628 section 3.1: what separates, and so cannot stand in a value.
_SEPARATOR = "\x01"

#: What is quoted of a server's words.
_MOST_CHARACTERS = 200


class BearerClient:
    """Either mechanism: one message with the token. To a refusal the server says first why, and waits to be answered.

    `problem` is what it said then, in words; "" while nothing was said.
    """

    sends_clear_password = True  # who reads the token can use it
    takes_long = False

    def __init__(self, mechanism: str, login: str, token: str, host: str = "", port: int = 0) -> None:
        if not _TOKEN.match(token):
            raise SaslError(f"{mechanism} cannot carry this token")
        if not login or _SEPARATOR in login or "\0" in login:
            raise SaslError(f"{mechanism} needs a user name that it can carry")
        self.mechanism = mechanism
        self.secrets: tuple[str, ...] = (token,)
        self.problem = ""
        self._answered = False
        bearer = f"auth=Bearer {token}{_SEPARATOR}{_SEPARATOR}"
        if mechanism == XOAUTH2:
            self._message = f"user={login}{_SEPARATOR}{bearer}".encode()
            self._dismissal = b""
        else:
            name = login.replace("=", "=3D").replace(",", "=2C")  # RFC 5801 section 4
            where = f"host={host}{_SEPARATOR}port={port}{_SEPARATOR}"
            self._message = f"n,a={name},{_SEPARATOR}{where}{bearer}".encode()
            self._dismissal = _SEPARATOR.encode()  # RFC 7628 section 3.2.3
        self._sent = False

    def initial_response(self) -> bytes | None:
        """All of it."""
        self._sent = True
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        """All of it to an empty challenge, where the server took no initial response; else what ends the exchange."""
        if not self._sent and not challenge:
            self._sent = True
            return self._message
        if self._answered:
            raise SaslError(f"the server asks for more than {self.mechanism} has")
        self._answered = True
        self.problem = _problem(challenge)
        return self._dismissal

    def accepted(self) -> None:
        """The server must not have said before that it refuses the token.

        Raises:
            SaslError: it has.
        """
        if self.problem:
            raise SaslError(f"the server took the login after it had refused the token: {self.problem}")


def _problem(challenge: bytes) -> str:
    """The error of a server (RFC 7628 section 3.2.2) in words: its status, and the scope that it asks for."""
    try:
        found = json.loads(challenge)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return _plain(challenge.decode("utf-8", "replace")) or "the token was refused"
    said = _plain(str(found.get("status", ""))) or "the token was refused"
    scope = _plain(str(found.get("scope", "")))
    return f"{said} (the server wants a token for {scope})" if scope else said


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text).strip()[:_MOST_CHARACTERS]
