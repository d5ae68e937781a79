"""What an authorization server publishes of itself (RFC 8414, OpenID Connect Discovery 1.0 section 4).

No token depends on it; it tells whether a tenant exists, and in which of Microsoft's clouds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ..model.account import Account, Cloud, OAuthProvider
from .answers import Refused, Unusable, plain, read_object
from .endpoints import GOOGLE, GRAPH, LOGIN

if TYPE_CHECKING:
    from ..net.http import HttpClient

#: So much of a document is read.
LONGEST_BYTES = 256 * 1024

_OPENID = ".well-known/openid-configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a document says; `tenant` and `cloud` are Microsoft's."""

    url: str
    issuer: str = ""
    token_endpoint: str = ""
    tenant: str = ""
    cloud: Cloud | None = None


def places(account: Account, cloud: Cloud | None = None) -> tuple[str, ...]:
    """Where the metadata of the account's server may be, the likelier first; nowhere where the account does not name
    the server. `cloud`: where another cloud would have it."""
    oauth = account.oauth
    if oauth.provider is OAuthProvider.MICROSOFT:
        # learn.microsoft.com/entra/identity-platform/v2-protocols-oidc#find-your-apps-openid-configuration-document-uri
        tenant = quote(oauth.tenant or "common", safe="")
        return (f"{LOGIN[cloud or oauth.cloud]}/{tenant}/v2.0/{_OPENID}",)
    if oauth.provider is OAuthProvider.GOOGLE:
        return (f"{GOOGLE['issuer']}/{_OPENID}",)
    if not oauth.issuer:
        return ()
    issuer = oauth.issuer.rstrip("/")
    parts = urlsplit(issuer)
    # RFC 8414 section 3.1: in front of the path; section 5: OpenID's stands behind it.
    return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path}", f"{issuer}/{_OPENID}"


async def look_up(account: Account, http: HttpClient, cloud: Cloud | None = None) -> Metadata:
    """The metadata of the account's server; raises for the first place where none has it.

    Raises:
        HttpFailed: there was no answer.
        Refused: the server has no such document, or none for this tenant.
        Unusable: what it has can't be read.
    """
    first: Exception | None = None
    for url in places(account, cloud):
        try:
            answer = await http.request(
                "GET", url, headers={"Accept": "application/json"}, patience=account.command_timeout,
                longest_bytes=LONGEST_BYTES,
            )  # fmt: skip
            return _read(url, read_object(answer))
        except (Refused, Unusable) as error:
            first = first or error
        except ValueError as error:
            raise Unusable(str(error)) from None
    assert first is not None, "somebody asked for what is nowhere"
    raise first


async def other_cloud(account: Account, http: HttpClient) -> Cloud | None:
    """The cloud that has the account's tenant, where its own does not. Raises HttpFailed."""
    own = LOGIN[account.oauth.cloud]
    for cloud, login in LOGIN.items():
        if login == own or cloud is Cloud.US_DOD:  # which shares its login with the government's
            continue
        try:
            found = await look_up(account, http, cloud)
        except (Refused, Unusable):
            continue
        return found.cloud or cloud
    return None


def _read(url: str, found: dict[str, Any]) -> Metadata:
    issuer, endpoint = _text(found, "issuer"), _text(found, "token_endpoint")
    if not issuer or not endpoint:
        raise Unusable("it names no issuer or no token endpoint")
    return Metadata(
        url=url, issuer=issuer, token_endpoint=endpoint, tenant=_tenant(issuer),
        cloud=_cloud(endpoint, _text(found, "msgraph_host")),
    )  # fmt: skip


def _tenant(issuer: str) -> str:
    """The id of the tenant, of `https://login.microsoftonline.com/ID/v2.0`."""
    parts = urlsplit(issuer).path.strip("/").split("/")
    return parts[0] if len(parts) == 2 and parts[1] == "v2.0" and "{" not in parts[0] else ""


def _cloud(endpoint: str, graph: str) -> Cloud | None:
    """Which of Microsoft's clouds it is: by where its Graph is, else by where it gives tokens."""
    for cloud, root in GRAPH.items():
        if graph and urlsplit(root).netloc == graph:
            return cloud
    host = urlsplit(endpoint).netloc
    return next((cloud for cloud, login in LOGIN.items() if urlsplit(login).netloc == host), None)


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    return plain(value) if isinstance(value, str) else ""
