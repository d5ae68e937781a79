"""What is asked of an authorization server, as values: nothing is sent here, time and random values are arguments."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote_plus, urlencode

from ..model.account import Account, OAuthFlow, OAuthProvider
from .assertions import client_assertion, service_account_assertion
from .endpoints import Endpoints, endpoints

#: RFC 7523 section 2.2.
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"

#: RFC 8628 section 3.4.
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"

#: Fields of a form that are as good as a password.
_SECRET = frozenset(
    {"client_secret", "client_assertion", "assertion", "refresh_token", "code", "code_verifier", "device_code"}
)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a request is made, and a random value that no other has."""

    now: datetime
    nonce: str


@dataclass(frozen=True, slots=True)
class Form:
    """A form to post to `url`."""

    url: str
    fields: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def secrets(self) -> Sequence[str]:
        """What of it nobody may read."""
        logins = [value.removeprefix("Basic ") for value in self.headers.values()]
        return [*(self.fields[name] for name in _SECRET if name in self.fields), *logins]

    def content(self) -> bytes:
        """The form as it is sent."""
        return urlencode(self.fields).encode("ascii")


def authorization_url(account: Account, redirect_uri: str, state: str, verifier: str) -> str:
    """Where a person consents (RFC 6749 section 4.1.1), with PKCE (RFC 7636 section 4.3)."""
    where = endpoints(account)
    asked = {
        "response_type": "code",
        "client_id": account.oauth.client_id,
        "redirect_uri": redirect_uri,
        "scope": where.scope,
        "state": state,
        "code_challenge": challenge_of(verifier),
        "code_challenge_method": "S256",
        **dict(where.extra),
    }
    if account.username or account.graph.mailbox:
        asked["login_hint"] = account.username or account.graph.mailbox
    return f"{where.authorize}{'&' if '?' in where.authorize else '?'}{urlencode(asked)}"


def challenge_of(verifier: str) -> str:
    """The S256 challenge of a verifier (RFC 7636 section 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode()


def code_request(account: Account, code: str, redirect_uri: str, verifier: str, at: Moment) -> Form:
    """The tokens for a code (RFC 6749 section 4.1.3)."""
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
    return _as_client(account, endpoints(account).token, fields | {"code_verifier": verifier}, at)


def device_authorization_request(account: Account, at: Moment) -> Form:
    """A device code (RFC 8628 section 3.1)."""
    where = endpoints(account)
    return _as_client(account, where.device, {"scope": where.scope}, at)


def device_token_request(account: Account, device_code: str, at: Moment) -> Form:
    """The tokens for a device code, or that nobody has consented yet (RFC 8628 section 3.4)."""
    fields = {"grant_type": _DEVICE_GRANT, "device_code": device_code}
    return _as_client(account, endpoints(account).token, fields, at)


def token_request(account: Account, refresh_token: str, at: Moment) -> Form:
    """An access token by the account's flow: by refresh token (RFC 6749 section 6), by the application's own rights
    (section 4.4), or by the key of a service account (RFC 7523 section 2.1).

    Raises:
        ValueError: the key can't sign.
    """
    where, flow = endpoints(account), account.oauth.flow
    if flow is OAuthFlow.SERVICE_ACCOUNT:
        assertion = service_account_assertion(account, where.scope, at.now)
        return Form(_token_uri(account, where), {"grant_type": _JWT_GRANT, "assertion": assertion})
    if flow is OAuthFlow.CLIENT_CREDENTIALS:
        return _as_client(account, where.token, {"grant_type": "client_credentials", "scope": where.scope}, at)
    fields = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    if account.oauth.provider is OAuthProvider.MICROSOFT:
        fields["scope"] = where.scope  # of several resources that were consented to, the token is for this one
    return _as_client(account, where.token, fields, at)


def _token_uri(account: Account, where: Endpoints) -> str:
    from .assertions import key_of

    return key_of(account).get("token_uri") or where.token


def _as_client(account: Account, url: str, fields: dict[str, str], at: Moment) -> Form:
    """The request of the registered application (RFC 6749 section 2.3): by certificate, by secret, or by name alone."""
    oauth = account.oauth
    if oauth.certificate:
        assertion = client_assertion(oauth, endpoints(account).token, at.now, at.nonce)
        own = {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion}
        return Form(url, fields | {"client_id": oauth.client_id} | own)
    if oauth.client_secret and oauth.provider is OAuthProvider.CUSTOM:
        # RFC 6749 section 2.3.1: every server takes Basic; each part is encoded as in a form.
        pair = f"{quote_plus(oauth.client_id)}:{quote_plus(oauth.client_secret)}"
        return Form(url, fields, {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"})
    secret = {"client_secret": oauth.client_secret} if oauth.client_secret else {}
    return Form(url, fields | {"client_id": oauth.client_id} | secret)
