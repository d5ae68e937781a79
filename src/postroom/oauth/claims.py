"""What an access token says of itself, for people's eyes: read and never believed (RFC 9068).

Microsoft's claims: learn.microsoft.com/entra/identity-platform/access-token-claims-reference.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..model.account import Account, AccountKind, Cloud, OAuthFlow, OAuthProvider
from .answers import plain
from .endpoints import GOOGLE_SCOPE, GRAPH, SMTP, SMTP_OWN

#: A longer token is not looked into.
_LONGEST = 65536

#: Of roles and scopes, so many are shown.
MOST_SHOWN = 50

#: The ids of Exchange Online and of Microsoft Graph, which are the same in every tenant and stand in tokens as well
#: (learn.microsoft.com/troubleshoot/entra/entra-id/governance/verify-first-party-apps-sign-in).
_EXCHANGE_ID = "00000002-0000-0ff1-ce00-000000000000"
_GRAPH_ID = "00000003-0000-0000-c000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Those of a token that count here; what it does not say is empty."""

    audience: tuple[str, ...] = ()
    tenant: str = ""
    application: str = ""
    user: str = ""
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    expires: datetime | None = None

    def show(self) -> dict[str, Any]:
        """What it says, as plain values."""
        found: dict[str, Any] = {
            "audience": ", ".join(self.audience), "tenant": self.tenant, "application": self.application,
            "user": self.user, "roles": list(self.roles[:MOST_SHOWN]), "scopes": list(self.scopes[:MOST_SHOWN]),
        }  # fmt: skip
        if self.expires is not None:
            found["expires"] = self.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True, slots=True)
class Rights:
    """What a token must say for mail to leave with it: for whom it is (one of `audiences`, the first is how it is
    called), and `needed`: of each group one, the first of which is what to ask for."""

    audiences: tuple[str, ...]
    needed: tuple[tuple[str, ...], ...]


def read_claims(token: str) -> Claims | None:
    """The claims of a JWT (RFC 7519 section 3), unverified: it is the service's to verify. None: it is none, and
    nobody but the service can look into it."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return Claims(
        audience=_several(found.get("aud")),
        tenant=_one(found, "tid"),
        application=_one(found, "appid", "azp", "client_id"),
        user=_one(found, "upn", "preferred_username", "unique_name", "email"),
        roles=_several(found.get("roles")),
        scopes=_several(found.get("scp", found.get("scope"))),
        expires=_time(found.get("exp")),
    )


def rights_of(account: Account) -> Rights | None:
    """What the tokens of `account` must give; None where only its server knows."""
    oauth = account.oauth
    is_own = oauth.flow is OAuthFlow.CLIENT_CREDENTIALS
    if oauth.provider is OAuthProvider.GOOGLE:
        return Rights((), ((GOOGLE_SCOPE,),))
    if oauth.provider is not OAuthProvider.MICROSOFT:
        return None
    if account.kind is AccountKind.GRAPH:
        send, drafts = ("Mail.Send", "Mail.Send.Shared"), ("Mail.ReadWrite", "Mail.ReadWrite.Shared")
        needed = (drafts,) if account.graph.draft_only else (send, drafts)
        return Rights((GRAPH[oauth.cloud], _GRAPH_ID), needed)
    # Both of its names are taken, whichever was asked for.
    exchange = (SMTP_OWN if is_own else SMTP)[oauth.cloud]
    others = {SMTP[oauth.cloud], SMTP_OWN[oauth.cloud]} - {exchange}
    if oauth.cloud is not Cloud.GLOBAL:  # by Microsoft's page the global ones serve everywhere
        others |= {SMTP[Cloud.GLOBAL], SMTP_OWN[Cloud.GLOBAL]}
    return Rights((exchange, *sorted(others), _EXCHANGE_ID), ((("SMTP.SendAsApp",) if is_own else ("SMTP.Send",)),))


def short(scopes: Iterable[str]) -> frozenset[str]:
    """Scopes without the name of their resource: `SMTP.Send` of `https://outlook.office.com/SMTP.Send`."""
    return frozenset(one if one.endswith("/") else one.rpartition("/")[2] for one in scopes)


def _one(found: dict[str, Any], *names: str) -> str:
    values = (found.get(name) for name in names)
    return next((plain(value) for value in values if isinstance(value, str) and value), "")


def _several(value: object) -> tuple[str, ...]:
    """A list, or words with spaces between."""
    words = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(plain(word) for word in words if isinstance(word, str))


def _time(value: object) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError):
        return None
