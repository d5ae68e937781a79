"""The access tokens of accounts: kept, refreshed before they expire, and never refreshed twice at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from ..crashing import reach
from ..errors import GatewayError
from ..model.account import Account
from ..model.clock import Clock
from ..model.token import Grant, TokenStore
from ..net.stream import ConnectFailed
from .answers import Cleaned, HttpAnswer, Refused, Tokens, Unusable, read_tokens, without
from .binding import binding
from .endpoints import needs_consent, uses_tokens
from .requests import Form, Moment, token_request

if TYPE_CHECKING:
    from ..net.http import Answer

_log = structlog.get_logger()

#: So long before its end a token is refreshed, or after four fifths of its life where that is later.
EARLY = timedelta(minutes=5)

#: A token that has less than this is not used any more, whatever becomes of the refresh.
LEAST = timedelta(seconds=30)

#: A claim on a refresh outlives the request by so much; after that another process may refresh.
CLAIM_OVER = timedelta(seconds=10)

#: How often somebody else's refresh is looked after.
LOOK_SECONDS = 0.2

#: How long requests that may have moved a refresh token are waited for at the end.
STOP_SECONDS = 4.0

#: How often unused consents are looked for, and how long they may be unused.
UPKEEP = timedelta(hours=1)
UNUSED = timedelta(days=1)

#: Of the answer of a token endpoint, so much is read.
LONGEST_BYTES = 256 * 1024

#: RFC 6749 section 5.2: the grant itself is worth nothing any more.
DEAD = "invalid_grant"

Post = Callable[[Account, Form], Awaitable[HttpAnswer]]


@dataclass(frozen=True, slots=True)
class Told:
    """What a server said of a token beside it; `scope` is "" where it said nothing, or it is not known any more."""

    scope: str = ""
    expires: datetime | None = None


class TokenService:
    """Gives access tokens. One request at a time asks for those of an account, whoever waits; `post` sends it."""

    def __init__(self, store: TokenStore, clock: Clock, post: Post | None = None) -> None:
        self.store = store
        self.clock = clock
        self.post = post or _post
        self._claimant = os.urandom(16)
        self._kept: dict[int, Grant] = {}
        self._unsaved: dict[int, Grant] = {}
        self._running: dict[int, tuple[Account, asyncio.Task[Grant]]] = {}
        self._scopes: dict[int, tuple[str, str]] = {}  # the last token of each account, and its scope

    async def token(self, account: Account, rejected: str = "") -> str:
        """An access token of `account` that is good for a while yet, and another one than `rejected`.

        Raises:
            ConnectFailed: at stage "token" (or "proxy", on the way there): there is none; `reply` has the server's
                refusal, if it did refuse.
        """
        wanted = binding(account)
        while True:
            kept = self._kept.get(account.id)
            if kept is not None and self._is_good(kept, wanted, rejected, EARLY):
                return kept.access_token
            running = self._running.get(account.id)
            is_ours = running is None
            asking, task = running or (account, self._begun(account, wanted, rejected))
            try:
                # Whoever waits may give up; the request goes on, since its answer may hold the only next refresh token.
                grant = await asyncio.shield(task)
            except ConnectFailed:
                if asking == account:
                    raise
                continue  # it was asked for with other settings, such as those of a test
            if is_ours or (grant.binding == wanted and grant.access_token != rejected):
                return grant.access_token

    async def fresh_token(self, account: Account) -> str:
        """A token that was not there before: for a test, which shall see that one can be had. Raises as `token`."""
        try:
            stored = await self.store.grant(account.id)
        except GatewayError as error:
            raise ConnectFailed("token", "network", f"what is stored of tokens can't be read: {error}") from error
        is_ours = stored is not None and stored.binding == binding(account)
        return await self.token(account, stored.access_token if stored is not None and is_ours else "")

    def told(self, account: Account, token: str) -> Told:
        """What the server said of `token`, if it is the last one."""
        kept = self._kept.get(account.id)
        last, scope = self._scopes.get(account.id, ("", ""))
        expires = kept.expires if kept is not None and kept.access_token == token else None
        return Told(scope if last == token else "", expires)

    def forget(self, account_id: int) -> None:
        """What is stored was changed by somebody else."""
        self._scopes.pop(account_id, None)
        self._kept.pop(account_id, None)
        self._unsaved.pop(account_id, None)

    async def keep_alive(self, accounts: Callable[[], Sequence[Account]]) -> None:
        """Refresh, for ever, what nobody has used for a day: consents end with disuse, and their end is seen early."""
        while True:
            await self._wait(UPKEEP.total_seconds())
            before = self.clock.now() - UNUSED
            for account in accounts():
                if account.enabled and uses_tokens(account) and needs_consent(account):
                    await self._keep_alive(account, before)

    async def _keep_alive(self, account: Account, before: datetime) -> None:
        try:
            grant = await self.store.grant(account.id)
            if grant is None or not grant.refresh_token or grant.refused or (grant.refreshed or before) > before:
                return
            await self.token(account, grant.access_token)
        except (ConnectFailed, GatewayError) as error:
            _log.warning("consent_not_kept_alive", account=account.name, reason=str(error))

    async def close(self) -> None:
        """Wait for what is under way, for a while."""
        if self._running:
            await asyncio.wait({task for _, task in self._running.values()}, timeout=STOP_SECONDS)
        for _, task in list(self._running.values()):
            task.cancel()

    async def ask(self, account: Account, form: Form) -> HttpAnswer:
        """The answer to a form.

        Raises:
            ConnectFailed: at stage "token", or "proxy": there is none.
        """
        clean = without([account.oauth.client_secret, *form.secrets])
        try:
            return Cleaned(await self.post(account, form), clean)
        except ValueError as error:
            raise ConnectFailed("token", "protocol", clean(str(error))) from None
        except ConnectFailed as error:
            error.reason = clean(error.reason)
            raise

    # Inside

    def _begun(self, account: Account, wanted: str, rejected: str) -> asyncio.Task[Grant]:
        task = asyncio.create_task(self._renewed(account, wanted, rejected))
        self._running[account.id] = account, task
        task.add_done_callback(lambda done: self._ended(account.id, done))
        return task

    def _ended(self, account_id: int, done: asyncio.Task[Grant]) -> None:
        self._running.pop(account_id, None)
        if not done.cancelled():
            done.exception()  # it was told to those who waited

    def _is_good(self, grant: Grant, wanted: str, rejected: str, early: timedelta) -> bool:
        """Whether its token may be used: it is this definition's, was not refused, and lasts."""
        if not grant.access_token or grant.access_token == rejected or grant.binding != wanted:
            return False
        if grant.expires is None or grant.refreshed is None:
            return False
        left, lifetime = grant.expires - self.clock.now(), grant.expires - grant.refreshed
        return left > min(early, max(lifetime / 5, LEAST))

    async def _renewed(self, account: Account, wanted: str, rejected: str) -> Grant:
        """A grant with a good token: the stored one, where another process was first, or a new one."""
        try:
            return await self._renew(account, wanted, rejected)
        except (ConnectFailed, GatewayError) as error:
            kept = self._kept.get(account.id)
            is_final = isinstance(error, ConnectFailed) and error.reply is not None and error.reply.code in (400, 401)
            if kept is not None and not is_final and self._is_good(kept, wanted, rejected, LEAST):
                _log.warning("token_not_refreshed", account=account.name, reason=str(error))
                return kept
            if isinstance(error, GatewayError):
                raise ConnectFailed("token", "network", f"tokens can't be stored: {error}") from error
            raise

    async def _renew(self, account: Account, wanted: str, rejected: str) -> Grant:
        grant = await self._stored(account, wanted)
        while not self._is_good(grant, wanted, rejected, EARLY):
            if needs_consent(account) and not grant.refresh_token:
                raise ConnectFailed("token", "consent", "nobody has authorized this account yet")
            patience = account.connect_timeout + account.command_timeout + CLAIM_OVER
            now = self.clock.now()
            if await self.store.claim(grant, self._claimant, now, now + patience):
                renewed = await self._asked_for(account, grant)
                if renewed is not None:
                    grant = renewed
                    break
            else:
                await self._wait(LOOK_SECONDS)
            grant = await self._stored(account, wanted)
        self._kept[account.id] = grant
        return grant

    async def _stored(self, account: Account, wanted: str) -> Grant:
        """What is stored for this definition of the account; else an empty grant in its place."""
        unsaved = self._unsaved.get(account.id)
        if unsaved is not None and await self._save(unsaved) is None:
            _log.warning("token_superseded", account=account.name)
        stored = await self.store.grant(account.id)
        if stored is not None and stored.binding == wanted:
            return stored
        return Grant(
            account_id=account.id, binding=wanted, refresh_token=account.oauth.refresh_token,
            version=stored.version if stored is not None else 0,
        )  # fmt: skip

    async def _asked_for(self, account: Account, grant: Grant) -> Grant | None:
        """Ask for an access token, and store what came before anybody uses it; None where the grant was replaced
        meanwhile."""
        at = Moment(self.clock.now(), os.urandom(16).hex())
        try:
            form = token_request(account, grant.refresh_token, at)
            tokens = read_tokens(await self.ask(account, form))
        except Refused as refused:
            if refused.error == DEAD and needs_consent(account) and refused.reply.code in (400, 401):
                await self._save(replace(grant, refused=refused.reply.lines[0]))
            else:
                await self.store.release(account.id, self._claimant)
            raise as_failure(refused) from refused
        except (ConnectFailed, Unusable, ValueError) as error:
            await self.store.release(account.id, self._claimant)
            raise as_failure(error) from error
        reach("R1")
        self._scopes[account.id] = tokens.access_token, tokens.scope
        saved = await self._save(granted(grant, tokens, at.now))
        reach("R2")
        return saved

    async def _save(self, grant: Grant) -> Grant | None:
        """Store it; until that has worked it is kept here, since no server gives a refresh token twice."""
        self._unsaved[grant.account_id] = grant
        saved = await self.store.save(grant)
        self._unsaved.pop(grant.account_id, None)
        return saved

    async def _wait(self, seconds: float) -> None:
        waited = asyncio.Event()
        timer = self.clock.call_later(seconds, waited.set)
        try:
            await waited.wait()
        finally:
            timer.cancel()


def granted(grant: Grant, tokens: Tokens, now: datetime) -> Grant:
    """`grant` with the tokens that came `now`. Where no refresh token came, the one that is there goes on."""
    refresh_expires = grant.refresh_expires
    if tokens.refresh_lifetime is not None:
        refresh_expires = now + tokens.refresh_lifetime
    elif tokens.refresh_token and tokens.refresh_token != grant.refresh_token:
        refresh_expires = None
    return replace(
        grant,
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token or grant.refresh_token,
        expires=now + tokens.lifetime,
        refresh_expires=refresh_expires,
        granted=grant.granted or now,
        refreshed=now,
        refused="",
    )


def as_failure(error: Exception) -> ConnectFailed:
    """What a token that could not be had means for the connection that needed it."""
    if isinstance(error, ConnectFailed):
        return error
    if isinstance(error, Refused):
        return ConnectFailed("token", "auth", error.reply.text, reply=error.reply)
    return ConnectFailed("token", "protocol", str(error))


class TrialTokens:
    """Tokens for settings that are tried, and perhaps not saved: each is asked for anew, and what they give is stored
    only where it is the saved account's own; `saved` is that account, if there is one."""

    def __init__(self, tokens: TokenService, saved: Account | None) -> None:
        self._tokens = tokens
        self._saved = saved
        self._told: tuple[str, Told] = "", Told()

    async def token(self, account: Account, rejected: str = "") -> str:
        """See `TokenService.token`."""
        if needs_consent(account):
            if self._saved is None or binding(self._saved) != binding(account):
                raise ConnectFailed(
                    "token", "consent", "nobody has authorized the account as it is here; save it first"
                )
            token = await (self._tokens.token(account, rejected) if rejected else self._tokens.fresh_token(account))
            self._told = token, self._tokens.told(account, token)
            return token
        now = self._tokens.clock.now()
        try:
            form = token_request(account, "", Moment(now, os.urandom(16).hex()))
            tokens = read_tokens(await self._tokens.ask(account, form))
        except (ConnectFailed, Refused, Unusable, ValueError) as error:
            raise as_failure(error) from error
        self._told = tokens.access_token, Told(tokens.scope, now + tokens.lifetime)
        return tokens.access_token

    def told(self, token: str) -> Told:
        """What the server said of `token`, if it is the last one."""
        return self._told[1] if self._told[0] == token else Told()


async def _post(account: Account, form: Form) -> Answer:
    from ..net.http import HttpClient, HttpFailed  # here: few accounts need it

    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json", **form.headers}
    async with HttpClient.of(account) as http:
        try:
            return await http.request(
                "POST", form.url, headers=headers, content=form.content(), patience=account.command_timeout,
                longest_bytes=LONGEST_BYTES,
            )  # fmt: skip
        except HttpFailed as failed:
            if failed.stage == "proxy":
                raise ConnectFailed("proxy", failed.kind, failed.reason) from failed
            raise ConnectFailed("token", failed.kind, f"{failed.stage}: {failed.reason}") from failed
