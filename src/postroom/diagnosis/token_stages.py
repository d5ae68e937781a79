"""The stages of a test that are about tokens: what the authorization server publishes, a token, and what it allows."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..model.account import Account, AccountKind, Cloud, OAuthFlow, OAuthProvider
from ..model.clock import Clock
from ..net.observer import Observer
from ..net.stream import ConnectFailed
from ..oauth.answers import Refused, Unusable
from ..oauth.claims import MOST_SHOWN, Claims, Rights, read_claims, rights_of, short
from ..oauth.endpoints import GOOGLE_SCOPE, LOGIN, endpoints
from ..oauth.metadata import Metadata, look_up, other_cloud, places
from ..oauth.service import Told
from ..policy.classify import Stage as ReplyStage
from ..policy.classify import classify
from .advice import Known, finding, of_failure, of_reply
from .certificates import tls_facts
from .order import Tokens
from .stages import Outcome, Recorder, Stage

if TYPE_CHECKING:
    from ..net.http import HttpClient

#: What is found on the way to the server, and shown.
_FOUND = ("address", "proxy_address", "version", "cipher")

#: The finding for a right that a token does not name, and whether no mail at all leaves without it.
_LACKING = {
    "SMTP.SendAsApp": ("token-lacks-send-as-app", False),
    "SMTP.Send": ("token-lacks-smtp-send", True),
    "Mail.Send": ("token-lacks-mail-send", True),
    "Mail.ReadWrite": ("token-lacks-drafts", False),
    GOOGLE_SCOPE: ("token-lacks-gmail", True),
}


class TokenStages:
    """The stages metadata, token and claims of one test. It gives tokens, as `TokenSource`: the first one is looked
    into, in a stage of its own. `rights` are those that it names, None while nobody can say."""

    def __init__(self, account: Account, recorder: Recorder, known: Known, tokens: Tokens | None, clock: Clock) -> None:
        self._account = account
        self._recorder = recorder
        self._known = known
        self._tokens = tokens
        self._clock = clock
        self.rights: frozenset[str] | None = None
        recorder.hide(account.oauth.client_secret, account.oauth.refresh_token)

    # What the server publishes

    async def metadata(self) -> None:
        """The stage metadata. Mail does not depend on it: it fails for a tenant that is not where it is looked for."""
        from ..net.http import HttpClient, HttpFailed  # here: few accounts need it

        recorder, account = self._recorder, self._account
        where = places(account)
        if not where:
            recorder.skip("metadata", "the account names no oauth_issuer, where its server would publish it")
            return
        recorder.began("metadata")
        recorder.said(f">>> GET {where[0]}")
        try:
            async with HttpClient.of(account, observer=_Found(recorder, self._clock)) as http:
                await self._look_up(http)
        except HttpFailed as failed:
            recorder.said(f"<<< {failed.stage}: {failed.reason}")
            unreached = ConnectFailed("token", failed.kind, f"{failed.stage}: {failed.reason}")
            if failed.stage == "proxy":
                unreached = ConnectFailed("proxy", failed.kind, failed.reason)
            recorder.current.worsen(Outcome.WARNING, unreached.reason, of_failure(unreached, self._known))
        recorder.end()

    async def _look_up(self, http: HttpClient) -> None:
        recorder, account, stage = self._recorder, self._account, self._recorder.current
        try:
            found = await look_up(account, http)
        except Refused as refused:
            recorder.said(f"<<< {refused.reply.text}")
            await self._refused(refused, http)
        except Unusable as error:
            recorder.said(f"<<< {error}")
            stage.worsen(Outcome.SKIPPED, f"the server publishes none that can be read: {error}")
        else:
            recorder.said(f"<<< 200, the metadata of {found.issuer}")
            self._judge_document(stage, found)

    async def _refused(self, refused: Refused, http: HttpClient) -> None:
        stage = self._recorder.current
        if classify(ReplyStage.TOKEN, refused.reply).rule != "microsoft-no-such-tenant":
            stage.worsen(Outcome.SKIPPED, f"the server publishes none: {refused.reply.text}")
            return
        cloud = await other_cloud(self._account, http)
        if cloud is None:
            stage.worsen(Outcome.FAILED, refused.reply.text, of_reply(ReplyStage.TOKEN, refused.reply, self._known))
        else:
            self._in_other_cloud(stage, cloud)

    def _judge_document(self, stage: Stage, found: Metadata) -> None:
        oauth = self._account.oauth
        stage.facts |= {"issuer": found.issuer, "token_endpoint": found.token_endpoint}
        if oauth.provider is OAuthProvider.MICROSOFT:
            stage.facts |= {"tenant": found.tenant, "cloud": found.cloud.value if found.cloud is not None else ""}
            if found.cloud is not None and found.cloud is not oauth.cloud and oauth.tenant:
                self._in_other_cloud(stage, found.cloud)
        elif oauth.provider is OAuthProvider.CUSTOM:
            if found.issuer != oauth.issuer:  # RFC 8414 section 3.3
                self._known.found["issuer"] = found.issuer
                advice = finding("metadata-issuer", self._known, issuer=found.issuer)
                stage.worsen(Outcome.WARNING, f"it is by {found.issuer}", advice)
            if found.token_endpoint != oauth.token_url:
                self._known.found["token_endpoint"] = found.token_endpoint
                advice = finding("metadata-token-endpoint", self._known, endpoint=found.token_endpoint)
                stage.worsen(Outcome.WARNING, f"it names another token endpoint: {found.token_endpoint}", advice)

    def _in_other_cloud(self, stage: Stage, cloud: Cloud) -> None:
        own = self._account.oauth.cloud
        self._known.found["cloud"] = cloud.value
        advice = finding("tenant-in-other-cloud", self._known, cloud=cloud.value, own=own.value)
        # Two of the clouds give their tokens at one place.
        outcome = Outcome.FAILED if LOGIN[own] != LOGIN[cloud] else Outcome.WARNING
        stage.worsen(outcome, f"the tenant is in the cloud {cloud.value}", advice)

    # A token

    async def token(self, account: Account, rejected: str = "") -> str:
        """See `TokenSource`; called within the stage token, or with a token that was `rejected`."""
        recorder = self._recorder
        if self._tokens is None:
            raise ConnectFailed("token", "consent", "nobody here gives out tokens")
        where = endpoints(account).token
        recorder.said(f">>> POST {where} ({account.oauth.flow.value})")
        if not rejected:
            recorder.found(flow=account.oauth.flow.value, server=urlsplit(where).netloc)
        try:
            token = await self._tokens.token(account, rejected)
        except ConnectFailed as failed:
            recorder.said(f"<<< {failed.reply.text if failed.reply is not None else failed.reason}")
            raise
        recorder.hide(token)
        recorder.said("<<< an access token")
        if not rejected:
            self._claims(token, self._tokens.told(token))
        return token

    def _claims(self, token: str, told: Told) -> None:
        """What the token says of itself, and what was said of it."""
        recorder = self._recorder
        if told.expires is not None:
            recorder.found(expires=told.expires.strftime("%Y-%m-%dT%H:%M:%SZ"))
        recorder.began("claims")
        claims, rights, stage = read_claims(token), rights_of(self._account), recorder.current
        if told.scope:
            stage.facts["granted"] = told.scope.split()[:MOST_SHOWN]
        if claims is None:
            self._opaque(stage, told, rights)
        else:
            stage.facts |= claims.show()
            self._judge_claims(stage, claims, told, rights)
        recorder.stop_clock()

    def _opaque(self, stage: Stage, told: Told, rights: Rights | None) -> None:
        if not told.scope:
            stage.worsen(Outcome.PASSED, "nobody but the service can read this token, and its scopes were not told")
            return
        self.rights = short(told.scope.split())
        self._judge_rights(stage, rights)

    def _judge_claims(self, stage: Stage, claims: Claims, told: Told, rights: Rights | None) -> None:
        self.rights = short((*claims.roles, *claims.scopes, *told.scope.split()))
        account = self._account
        if rights is not None and claims.audience and rights.audiences:
            named = [one.rstrip("/") for one in claims.audience]
            if not set(named) & set(rights.audiences):
                shown = {"audience": ", ".join(named), "wanted": rights.audiences[0]}
                advice = finding("token-audience", self._known, **shown)
                stage.worsen(Outcome.FAILED, f"the token is for {shown['audience']}", advice)
                return
        self._judge_rights(stage, rights)
        mailbox = account.graph.mailbox if account.kind is AccountKind.GRAPH else account.username
        is_person = account.oauth.flow in (OAuthFlow.AUTHORIZATION_CODE, OAuthFlow.DEVICE_CODE)
        if is_person and "@" in claims.user and mailbox and claims.user.lower() != mailbox.lower():
            advice = finding("token-of-another", user=claims.user, mailbox=mailbox)
            stage.worsen(Outcome.WARNING, f"{claims.user} has consented", advice)

    def _judge_rights(self, stage: Stage, rights: Rights | None) -> None:
        from ..transports.graph_outcomes import harmless  # here: it loads what speaks HTTP

        assert self.rights is not None
        account = self._account
        words = {
            "client": harmless(account.oauth.client_id, "CLIENT_ID"),
            "mailbox": harmless(account.graph.draft_mailbox or account.graph.mailbox or account.username, "MAILBOX"),
        }
        needed = rights.needed if rights is not None else [(one,) for one in _custom_scopes(account)]
        lacking = [group[0] for group in needed if not self.rights & short(group)]
        is_own = account.oauth.flow is OAuthFlow.CLIENT_CREDENTIALS
        is_microsofts_own = is_own and account.oauth.provider is OAuthProvider.MICROSOFT
        for one in lacking:
            name, is_final = _LACKING.get(one, ("token-lacks-scope", rights is not None))
            is_final = is_final or (one == "Mail.ReadWrite" and account.graph.draft_only)
            if is_microsofts_own:
                # learn.microsoft.com/exchange/permissions-exo/application-rbac: rights of Exchange stand in no token.
                name, is_final = f"{name}-role", False
            advice = finding(name, self._known, right=one, **words)
            stage.worsen(Outcome.FAILED if is_final else Outcome.WARNING, f"it does not name {one}", advice)


def _custom_scopes(account: Account) -> list[str]:
    """Those that were asked of a server of its own, but for what is no right: it may leave the rest out, too."""
    asked = [one for one in account.oauth.scopes if one not in ("offline_access", "openid", "profile", "email")]
    return [one for one in asked if not one.endswith("/.default")]  # which is Microsoft's for all that were granted


class _Found(Observer):
    """Notes how the server was reached, in the stage that the recorder is in."""

    def __init__(self, recorder: Recorder, clock: Clock) -> None:
        self._recorder = recorder
        self._clock = clock

    def found(self, **facts: object) -> None:
        """See `Observer.found`."""
        self._recorder.found(**{name: value for name, value in facts.items() if name in _FOUND})

    def secured(self, tls: ssl.SSLObject) -> None:
        """See `Observer.secured`."""
        self.found(**tls_facts(tls, self._clock.now()))
