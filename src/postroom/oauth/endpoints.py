"""Where the tokens of an account come from: endpoints, scopes and habits of Microsoft, Google and others."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.account import Account, AccountKind, Authentication, Cloud, OAuthFlow, OAuthProvider

#: Where each cloud gives tokens (learn.microsoft.com/entra/identity-platform/authentication-national-cloud).
LOGIN = {
    Cloud.GLOBAL: "https://login.microsoftonline.com",
    Cloud.US_GOVERNMENT: "https://login.microsoftonline.us",
    Cloud.US_DOD: "https://login.microsoftonline.us",
    Cloud.CHINA: "https://login.partner.microsoftonline.cn",
}

#: learn.microsoft.com/exchange/client-developer/legacy-protocols/
#: how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth: the global cloud; others by their host of Outlook.
SMTP = {
    Cloud.GLOBAL: "https://outlook.office.com",
    Cloud.US_GOVERNMENT: "https://outlook.office365.us",
    Cloud.US_DOD: "https://outlook-dod.office365.us",
    Cloud.CHINA: "https://partner.outlook.cn",
}

#: The same page: an application's own rights are asked for under another host in the global cloud.
SMTP_OWN = SMTP | {Cloud.GLOBAL: "https://outlook.office365.com"}

#: learn.microsoft.com/graph/deployments
GRAPH = {
    Cloud.GLOBAL: "https://graph.microsoft.com",
    Cloud.US_GOVERNMENT: "https://graph.microsoft.us",
    Cloud.US_DOD: "https://dod-graph.microsoft.us",
    Cloud.CHINA: "https://microsoftgraph.chinacloudapi.cn",
}

#: developers.google.com/identity/protocols/oauth2/native-app, .../limited-input-device, .../service-account
GOOGLE = {
    "authorize": "https://accounts.google.com/o/oauth2/v2/auth",
    "device": "https://oauth2.googleapis.com/device/code",
    "token": "https://oauth2.googleapis.com/token",
    "issuer": "https://accounts.google.com",
}

#: developers.google.com/workspace/gmail/imap/xoauth2-protocol
GOOGLE_SCOPE = "https://mail.google.com/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Of one account. `issuer` is who answers an authorization (RFC 9207); "": it does not say. `loopback` is the name
    of this machine in redirects to it; `extra` goes with what a person is sent to."""

    authorize: str
    device: str
    token: str
    scope: str
    issuer: str = ""
    loopback: str = "127.0.0.1"
    extra: tuple[tuple[str, str], ...] = ()


def endpoints(account: Account) -> Endpoints:
    """The endpoints of `account`, and the scope that sending by it needs."""
    oauth = account.oauth
    scope = " ".join(oauth.scopes)
    if oauth.provider is OAuthProvider.MICROSOFT:
        # Who belongs to no tenant in particular logs in at "common"; the port of http://localhost is not compared
        # (learn.microsoft.com/entra/identity-platform/reply-url#localhost-exceptions).
        base = f"{LOGIN[oauth.cloud]}/{oauth.tenant or 'common'}/oauth2/v2.0"
        return Endpoints(
            authorize=f"{base}/authorize", device=f"{base}/devicecode", token=f"{base}/token",
            scope=scope or _microsoft_scope(account), loopback="localhost",
        )  # fmt: skip
    if oauth.provider is OAuthProvider.GOOGLE:
        # Without these two Google gives a refresh token the first time only
        # (developers.google.com/identity/protocols/oauth2/web-server#offline).
        return Endpoints(
            **GOOGLE, scope=scope or GOOGLE_SCOPE, extra=(("access_type", "offline"), ("prompt", "consent"))
        )
    return Endpoints(
        authorize=oauth.authorize_url, device=oauth.device_url, token=oauth.token_url, scope=scope, issuer=oauth.issuer
    )


def _microsoft_scope(account: Account) -> str:
    cloud, is_own = account.oauth.cloud, account.oauth.flow is OAuthFlow.CLIENT_CREDENTIALS
    if account.kind is AccountKind.GRAPH:
        wanted = [f"{GRAPH[cloud]}/Mail.Send", f"{GRAPH[cloud]}/Mail.ReadWrite"]
        return f"{GRAPH[cloud]}/.default" if is_own else " ".join([*wanted, "offline_access"])
    return f"{SMTP_OWN[cloud]}/.default" if is_own else f"{SMTP[cloud]}/SMTP.Send offline_access"


def uses_tokens(account: Account) -> bool:
    """Whether the account has to do with tokens at all."""
    return account.authentication is Authentication.OAUTH2 or account.kind is AccountKind.GRAPH


def needs_consent(account: Account) -> bool:
    """Whether a person has to consent, or the application has rights of its own."""
    return account.oauth.flow in (OAuthFlow.AUTHORIZATION_CODE, OAuthFlow.DEVICE_CODE)
