"""Consents of people: asked for by a link or by a device code, each answered once, and kept as a grant."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from .. import errors
from ..errors import Fault, InvalidInput, NotRunning, StateConflict
from ..model.account import Account, OAuthProvider
from ..model.clock import Clock
from ..model.reply import Reply
from ..model.token import Consent, Grant, PendingConsent, TokenStore
from ..net.stream import ConnectFailed
from ..policy.classify import Stage, classify
from .answers import Refused, Tokens, Unusable, plain, read_device_code, read_tokens
from .binding import binding
from .endpoints import endpoints, needs_consent, uses_tokens
from .requests import (
    Form,
    Moment,
    authorization_url,
    code_request,
    device_authorization_request,
    device_token_request,
)
from .service import TokenService, granted

#: How long a person may take to consent in a browser.
PATIENCE = timedelta(minutes=15)

#: RFC 7636 section 4.1 and RFC 6749 section 10.10: octets of random values.
_VERIFIER_BYTES = 64
_STATE_BYTES = 32

#: Hosts of redirects that stay on the machine of the browser (RFC 8252 section 7.3).
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Link:
    """Where a person consents; the answer comes to the redirect URI, until `expires`."""

    url: str
    state: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Device:
    """What a person types where; to be asked for after each `interval` until `expires`. `complete` needs no typing."""

    state: str
    user_code: str
    verification_uri: str
    complete: str
    interval: timedelta
    expires: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nobody has consented yet; with `slower` the interval is five seconds longer from now on (RFC 8628, 3.5)."""

    slower: bool = False


class ConsentService:
    """Consents of all accounts. `public_url` is what redirects to this gateway begin with, "" for none; `given`
    is called with an account that was just consented to."""

    def __init__(
        self,
        tokens: TokenService,
        clock: Clock,
        public_url: Callable[[], str],
        given: Callable[[Account], Awaitable[None]],
    ) -> None:
        self._tokens = tokens
        self._store: TokenStore = tokens.store
        self._clock = clock
        self._public_url = public_url
        self._given = given

    async def begin(self, account: Account, redirect_uri: str) -> Link:
        """Ask for a consent by a link.

        Raises:
            StateConflict: the account needs none.
            InvalidInput: the redirect leads neither to the browser's machine nor to this gateway.
        """
        _require_flow(account)
        self._require_redirect(redirect_uri)
        where = endpoints(account)
        if not where.authorize:
            raise InvalidInput(Fault("oauth_authorize_url", "there is none", "give it, or authorize by a device code"))
        state, verifier = secrets.token_urlsafe(_STATE_BYTES), secrets.token_urlsafe(_VERIFIER_BYTES)
        expires = self._clock.now() + PATIENCE
        await self._asked(account, state, verifier, redirect_uri, expires)
        return Link(authorization_url(account, redirect_uri, state, verifier), state, expires)

    async def begin_on_loopback(self, account: Account, port: int) -> Link:
        """Ask for a consent by a link, whose answer a program on the browser's machine waits for at `port` (RFC 8252
        section 7.3). Raises as `begin`."""
        host = endpoints(account).loopback
        # Microsoft's registered http://localhost has no path, and paths are compared.
        return await self.begin(account, f"http://{host}:{port}{'' if host == 'localhost' else '/'}")

    async def begin_device(self, account: Account) -> Device:
        """Ask for a consent by a code that a person types on another device.

        Raises:
            StateConflict: the account needs none.
            InvalidInput: its provider gives no device codes.
            GatewayError: there was no answer that can be used.
        """
        _require_flow(account)
        if not endpoints(account).device:
            raise InvalidInput(Fault("oauth_device_url", "there is none", "give it, or authorize in a browser"))
        try:
            code = read_device_code(await self._tokens.ask(account, device_authorization_request(account, self._at())))
        except (Refused, Unusable, ConnectFailed) as error:
            raise _told(error) from error
        state, expires = secrets.token_urlsafe(_STATE_BYTES), self._clock.now() + code.lifetime
        await self._asked(account, state, code.device_code, "", expires)
        complete = code.verification_uri_complete
        return Device(state, code.user_code, code.verification_uri, complete, code.interval, expires)

    async def complete(self, account: Account, answer: Mapping[str, str]) -> Consent:
        """Take what the authorization server gave along with the redirect (RFC 6749 section 4.1.2).

        Raises:
            InvalidInput: it answers nothing that was asked for this account, or not any more.
            Refused: the person or the server said no.
            StateConflict: the account was changed meanwhile.
            NotRunning: the token endpoint does not answer.
        """
        pending = await self._pending(account, answer.get("state", ""))
        await self._take(pending)  # an answer counts once, whatever comes of it
        must_name = account.oauth.provider is OAuthProvider.CUSTOM
        _require_issuer(endpoints(account).issuer, answer.get("iss", ""), must_name=must_name)
        if answer.get("error"):
            words = [plain(answer[name]) for name in ("error", "error_description") if answer.get(name)]
            raise _refusal(Reply(400, (": ".join(words),)))
        code = answer.get("code", "")
        if not code:
            raise InvalidInput(Fault("code", "there is none in the answer", "begin again"))
        form = code_request(account, code, pending.redirect_uri, pending.secret, self._at())
        return await self._keep(account, await self._tokens_for(account, form))

    async def poll(self, account: Account, state: str) -> Consent | Waiting:
        """Whether the device code was consented to by now. Raises as `complete`."""
        pending = await self._pending(account, state)
        form = device_token_request(account, pending.secret, self._at())
        try:
            tokens = read_tokens(await self._tokens.ask(account, form))
        except Refused as refused:
            if refused.error in ("authorization_pending", "slow_down"):
                return Waiting(slower=refused.error == "slow_down")
            await self._take(pending)
            raise _told(refused) from refused
        except (Unusable, ConnectFailed):
            return Waiting(slower=True)  # RFC 8628 section 3.5: ask again, less often
        await self._take(pending)
        return await self._keep(account, tokens)

    async def forget(self, account: Account) -> None:
        """Forget what the account was given: it must be authorized again."""
        await self._store.forget(account.id)
        self._tokens.forget(account.id)

    async def of(self, account: Account) -> Consent | None:
        """How the account stands; None where it has nothing to do with tokens."""
        return consent_of(account, await self._store.grant(account.id)) if uses_tokens(account) else None

    async def of_all(self, accounts: Sequence[Account]) -> dict[int, Consent]:
        """How all of them stand that have to do with tokens, by id."""
        if not any(map(uses_tokens, accounts)):
            return {}
        grants = {grant.account_id: grant for grant in await self._store.grants()}
        return {one.id: consent_of(one, grants.get(one.id)) for one in accounts if uses_tokens(one)}

    async def refresh_token(self, account: Account) -> str:
        """The refresh token that counts now: the last one that came, or the one in the account's field."""
        if not uses_tokens(account) or not needs_consent(account):
            return account.oauth.refresh_token
        stored = await self._store.grant(account.id)
        if stored is None or stored.binding != binding(account):
            return account.oauth.refresh_token
        return stored.refresh_token or account.oauth.refresh_token

    # Inside

    def _at(self) -> Moment:
        return Moment(self._clock.now(), secrets.token_hex(16))

    def _require_redirect(self, redirect_uri: str) -> None:
        mend = "begin it with the setting public_url, or with http://127.0.0.1:PORT/"
        try:
            parts = urlsplit(redirect_uri)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise InvalidInput(Fault("redirect_uri", "is not a URL", mend)) from None
        public = self._public_url().rstrip("/")
        is_ours = bool(public) and (redirect_uri == public or redirect_uri.startswith(f"{public}/"))
        is_loopback = parts.scheme == "http" and host in _LOOPBACK and parts.username is None
        if not is_ours and not is_loopback:
            raise InvalidInput(Fault("redirect_uri", "leads elsewhere than to this gateway", mend))

    async def _asked(self, account: Account, state: str, secret: str, redirect_uri: str, expires: datetime) -> None:
        pending = PendingConsent(
            state=state, account_id=account.id, binding=binding(account), secret=secret, redirect_uri=redirect_uri,
            expires=expires,
        )  # fmt: skip
        await self._store.ask(pending, self._clock.now())

    async def _pending(self, account: Account, state: str) -> PendingConsent:
        pending = await self._store.asked(state) if state else None
        if pending is None or pending.account_id != account.id or pending.expires <= self._clock.now():
            fault = "is none that was given out for this account, or it was answered, or has expired"
            raise InvalidInput(Fault("state", fault, f"begin again: postroom accounts authorize {account.name}"))
        if pending.binding != binding(account):
            await self._store.take(state)
            raise StateConflict(f"account {account.name} was changed after it was begun to authorize it: begin again")
        return pending

    async def _take(self, pending: PendingConsent) -> None:
        if not await self._store.take(pending.state):
            raise InvalidInput(Fault("state", "was answered already", "begin again"))

    async def _tokens_for(self, account: Account, form: Form) -> Tokens:
        try:
            return read_tokens(await self._tokens.ask(account, form))
        except (Refused, Unusable, ConnectFailed) as error:
            raise _told(error) from error

    async def _keep(self, account: Account, tokens: Tokens) -> Consent:
        if not tokens.refresh_token:
            what = "the authorization server gave no refresh token: its access token alone would not last"
            mend = "give in oauth_scopes the scope that asks for one, which is offline_access with most"
            raise errors.Refused(f"{what} ({mend})")
        grant = granted(Grant(account_id=account.id, binding=binding(account)), tokens, self._clock.now())
        saved = await self._store.save(grant, whatever_version=True)
        self._tokens.forget(account.id)
        await self._given(account)
        return consent_of(account, saved)


def _require_flow(account: Account) -> None:
    if not uses_tokens(account):
        raise StateConflict(f"account {account.name} does not log in by OAuth 2: set authentication to oauth2")
    if not needs_consent(account):
        flow = account.oauth.flow.value
        raise StateConflict(f"account {account.name} needs nobody's consent: its oauth_flow is {flow}")


def _require_issuer(expected: str, named: str, *, must_name: bool) -> None:
    """RFC 9207 section 2.4: an answer that another server gave is not this account's."""
    if not expected or (not named and not must_name):
        return
    if not hmac.compare_digest(named.encode(), expected.encode()):
        raise errors.Refused(f"the answer is by {plain(named) or 'nobody who says so'}, and {expected} was asked")


def _refusal(reply: Reply) -> errors.Refused:
    advice = classify(Stage.TOKEN, reply).advice
    return errors.Refused(f"the authorization server said no: {reply.lines[0]}" + (f" ({advice})" if advice else ""))


def _told(error: Exception) -> errors.GatewayError:
    if isinstance(error, Refused):
        return _refusal(error.reply)
    return NotRunning(f"the authorization server gave no answer that can be used: {error}")


def consent_of(account: Account, grant: Grant | None) -> Consent:
    """How `account` stands with what is stored of it."""
    oauth = account.oauth
    if grant is not None and grant.binding != binding(account):
        grant = None
    state, why = "not needed", ""
    if needs_consent(account):
        has_one = bool(grant.refresh_token if grant is not None else oauth.refresh_token)
        why = grant.refused if grant is not None else ""
        state = "refused" if why else "given" if has_one else "missing"
    return Consent(
        flow=oauth.flow.value,
        state=state,
        why=why,
        granted=grant.granted if grant is not None and needs_consent(account) else None,
        refreshed=grant.refreshed if grant is not None else None,
        token_expires=grant.expires if grant is not None else None,
        refresh_expires=grant.refresh_expires if grant is not None else None,
        secret_expires=secret_expires(account),
        certificate_expires=certificate_expires(account),
    )


def secret_expires(account: Account) -> datetime | None:
    """The end of the day that the account names for its secret."""
    day = account.oauth.secret_expires
    return datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1) if day else None


def certificate_expires(account: Account) -> datetime | None:
    """When the certificate of the application expires, if it has one."""
    if not account.oauth.certificate:
        return None
    from cryptography import x509  # here: heavy, and seldom needed

    return x509.load_pem_x509_certificates(account.oauth.certificate.encode())[0].not_valid_after_utc
