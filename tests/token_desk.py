"""A token endpoint on the test's own loop: it rotates refresh tokens, and misbehaves as it is told."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable
from typing import Any

from tests.web_server import Asked, WebServer, answer

Misbehaviour = Callable[[Asked], bytes | None]


class TokenDesk:
    """`async with TokenDesk() as desk`: gives access tokens a1, a2, ... and for refresh token rN the next one; over TLS
    with `context`.

    `documents` are what it publishes, by path; `made` makes an access token of its number; `beside` stands in an answer
    with tokens."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.server = WebServer(self._say, context)
        self.refresh_token = "r1"
        self.rotates = True
        self.given = 0
        self.lifetime = 3600
        self.misbehaviours: list[Misbehaviour] = []
        self.documents: dict[str, bytes] = {}
        self.made: Callable[[int], str] = "a{}".format
        self.beside: dict[str, object] = {}

    async def __aenter__(self) -> TokenDesk:
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *about: Any) -> None:
        await self.server.__aexit__(*about)

    @property
    def asked(self) -> list[Asked]:
        """All requests so far."""
        return self.server.asked

    def account(self, **fields: Any) -> dict[str, Any]:
        """The fields of an account that comes here for tokens."""
        where = {f"oauth_{name}_url": f"{self.server.url}/{name}" for name in ("token", "authorize", "device")}
        return {
            "authentication": "oauth2", "username": "ann@x.test", "oauth_provider": "custom",
            "oauth_client_id": "client", "oauth_scopes": "mail", **where, **fields,
        }  # fmt: skip

    def _say(self, asked: Asked) -> bytes | None:
        if asked.method == "GET":
            return self.documents.get(asked.path, answer({"error": "not_found"}, 404))
        if self.misbehaviours:
            return self.misbehaviours.pop(0)(asked)
        grant = asked.form.get("grant_type", "")
        if grant == "refresh_token" and asked.form["refresh_token"] != self.refresh_token:
            return answer({"error": "invalid_grant", "error_description": "grant request is invalid"}, 400)
        return self.tokens(with_refresh=grant != "client_credentials")

    def tokens(self, *, with_refresh: bool = True) -> bytes:
        """The answer that gives the next ones."""
        self.given += 1
        found: dict[str, object] = {"access_token": self.made(self.given), "token_type": "Bearer", **self.beside}
        found["expires_in"] = self.lifetime
        if with_refresh and self.rotates:
            self.refresh_token = f"r{self.given + 1}"
            found["refresh_token"] = self.refresh_token
        return answer(found)


def jwt(**claims: object) -> str:
    """An access token that says this of itself, signed by nobody."""
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "c2lnbmVk"])


def xoauth2(token: str, user: str = "ann@x.test") -> str:
    """The command that logs in with a token."""
    return "AUTH XOAUTH2 " + base64.b64encode(f"user={user}\x01auth=Bearer {token}\x01\x01".encode()).decode()
