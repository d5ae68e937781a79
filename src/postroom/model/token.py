"""What OAuth 2 gives an account: tokens, and the consents that are waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What an account has been given, as it is stored: sealed but for its times.

    `binding` tells for which definition of the account it was given: another client, tenant, mailbox or scope makes it
    void. `expires` is about the access token, `refresh_expires` about the refresh token where the server said so;
    `granted` is when a person consented (or the token was given), `refreshed` when the last access token came;
    `refused` says why the server takes the refresh token no more, "" while it does. `version` grows with each change.
    """

    account_id: int
    binding: str
    refresh_token: str = field(default="", repr=False)
    access_token: str = field(default="", repr=False)
    expires: datetime | None = None
    refresh_expires: datetime | None = None
    granted: datetime | None = None
    refreshed: datetime | None = None
    refused: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingConsent:
    """A consent that was asked for: `state` names it, once and until `expires`; `secret` is what its answer must fit,
    the PKCE verifier or the device code."""

    state: str
    account_id: int
    binding: str
    secret: str = field(repr=False)
    redirect_uri: str = ""
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """How an account stands with its authorization server, for people.

    `state` is "not needed" (the application has rights of its own), "missing", "given" or "refused" (`why`).
    """

    flow: str
    state: str
    why: str = ""
    granted: datetime | None = None
    refreshed: datetime | None = None
    token_expires: datetime | None = None
    refresh_expires: datetime | None = None
    secret_expires: datetime | None = None
    certificate_expires: datetime | None = None


class TokenStore(Protocol):
    """What is kept of tokens and consents; secrets are sealed on the way in and opened on the way out."""

    async def grant(self, account_id: int) -> Grant | None:
        """What the account was given. Raises InvalidInput where no key opens it."""

    async def grants(self) -> Sequence[Grant]:
        """What all accounts were given."""

    def claim(self, grant: Grant, claimant: bytes, now: datetime, until: datetime) -> Awaitable[bool]:
        """Take the right to refresh `grant` until then, if it still has this version and nobody has it; a grant that is
        not stored yet (version 0) is. Raises NotFound where the account was removed."""

    def release(self, account_id: int, claimant: bytes) -> Awaitable[None]:
        """Give that right back."""

    def release_all(self) -> Awaitable[None]:
        """Take back the rights of processes that are gone; only who has the store alone may."""

    def save(self, grant: Grant, *, whatever_version: bool = False) -> Awaitable[Grant | None]:
        """Store it under the next version, nobody's claim; None, and nothing is stored, where what was claimed is not
        there any more in this version. `whatever_version`: in the place of all that is there, claimed or not; then it
        raises NotFound where the account was removed."""

    def forget(self, account_id: int) -> Awaitable[None]:
        """Remove it, and what was asked for it."""

    def ask(self, pending: PendingConsent, now: datetime) -> Awaitable[None]:
        """Keep what an answer will be compared with; what has expired goes. Raises NotFound as `save`."""

    async def asked(self, state: str) -> PendingConsent | None:
        """What was asked under that name."""

    def take(self, state: str) -> Awaitable[bool]:
        """Remove it; whether it was there: only one gets it."""
