"""What OAuth 2 gave to accounts, sealed: tokens, and the consents that are waited for."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Table, delete, insert, or_, select, update

from ..errors import Fault, InvalidInput, NotFound
from ..model.token import Grant, PendingConsent
from .keyring import Keyring
from .readers import Reader
from .schema import account, consent, maybe_moment, micros, moment, token
from .writer import Transaction

#: Both tables, with what makes a row of them.
SEALED: tuple[tuple[Table, Any], ...] = ((token, token.c.account_id), (consent, consent.c.state))

_INSERT = f"INSERT INTO token ({', '.join(token.c.keys())}) VALUES ({', '.join(f':{name}' for name in token.c.keys())})"


def _maybe_micros(at: datetime | None) -> int | None:
    return None if at is None else micros(at)


def forget(transaction: Transaction, account_id: int) -> None:
    """The account goes, or what it was given."""
    for table in (token, consent):
        transaction.core.execute(delete(table).where(table.c.account_id == account_id))


def _require_account(transaction: Transaction, account_id: int) -> None:
    """For a first row: an account that was removed meanwhile gets none, since nobody would remove it."""
    if transaction.core.execute(select(account.c.id).where(account.c.id == account_id)).first() is None:
        raise NotFound(Fault("account", "it was removed"))


def reseal(transaction: Transaction, keyring: Keyring) -> None:
    """Seal all of it anew under the first key. Raises InvalidInput where none opens it."""
    for table, key in SEALED:
        for row in transaction.core.execute(select(key, table.c.sealed)).all():
            fresh = keyring.seal(keyring.open(row.sealed))
            transaction.core.execute(update(table).where(key == row[0]).values(sealed=fresh))


def _state_key(state: str) -> bytes:
    """Under which a consent is found: what is stored does not tell its name."""
    return hashlib.sha256(state.encode()).digest()[:16]


class TokenTable:
    """See `TokenStore`: `read` runs work with a reader, `write` gives work to the writer."""

    def __init__(
        self,
        read: Callable[[Callable[[Reader], Any]], Awaitable[Any]],
        write: Callable[[Callable[[Transaction], Any]], asyncio.Future[Any]],
        keyring: Keyring | None,
    ) -> None:
        self._read = read
        self._write = write
        self._keyring = keyring

    async def grant(self, account_id: int) -> Grant | None:
        """See `TokenStore.grant`."""
        found = select(token).where(token.c.account_id == account_id)
        row = await self._read(lambda reader: reader.core.execute(found).first())
        return None if row is None else self._grant(row)

    async def grants(self) -> Sequence[Grant]:
        """See `TokenStore.grants`."""
        rows = await self._read(lambda reader: reader.core.execute(select(token)).all())
        return [self._grant(row) for row in rows]

    def claim(self, grant: Grant, claimant: bytes, now: datetime, until: datetime) -> asyncio.Future[bool]:
        """See `TokenStore.claim`."""
        rights = {"claimant": claimant, "claimed_until": micros(until)}
        empty = self._row(grant) | rights
        is_free = or_(token.c.claimed_until.is_(None), token.c.claimed_until <= micros(now))
        mine = token.c.account_id == grant.account_id, token.c.version == grant.version, is_free
        claimed = update(token).where(*mine).values(**rights)

        def work(transaction: Transaction) -> bool:
            if transaction.core.execute(claimed).rowcount:
                return True
            if grant.version:
                return False  # it was forgotten meanwhile
            _require_account(transaction, grant.account_id)
            return transaction.raw.insert(_INSERT, empty)  # of two nodes, one does

        return self._write(work)

    def release(self, account_id: int, claimant: bytes) -> asyncio.Future[None]:
        """See `TokenStore.release`."""
        mine = token.c.account_id == account_id, token.c.claimant == claimant
        freed = update(token).where(*mine).values(claimant=None, claimed_until=None)
        return self._write(lambda transaction: transaction.core.execute(freed) and None)

    def release_all(self) -> asyncio.Future[None]:
        """See `TokenStore.release_all`."""
        freed = update(token).where(token.c.claimant.is_not(None)).values(claimant=None, claimed_until=None)
        return self._write(lambda transaction: transaction.core.execute(freed) and None)

    def save(self, grant: Grant, *, whatever_version: bool = False) -> asyncio.Future[Grant | None]:
        """See `TokenStore.save`."""
        row = self._row(grant) | {"claimant": None, "claimed_until": None}
        wanted = [token.c.account_id == grant.account_id]
        if not whatever_version:
            # Without a claim it is another row of that version: what was forgotten meanwhile, and given anew.
            wanted += [token.c.version == grant.version, token.c.claimant.is_not(None)]
        changed = update(token).where(*wanted).values(**row | {"version": token.c.version + 1})
        changing = changed.returning(token.c.version)

        def work(transaction: Transaction) -> Grant | None:
            # By one statement, that another node's can't come between.
            stored = transaction.core.execute(changing).first()
            if stored is None and whatever_version:
                _require_account(transaction, grant.account_id)
                if transaction.raw.insert(_INSERT, row | {"version": 1}):
                    return replace(grant, version=1)
                stored = transaction.core.execute(changing).first()
            return None if stored is None else replace(grant, version=stored.version)

        return self._write(work)

    def forget(self, account_id: int) -> asyncio.Future[None]:
        """See `TokenStore.forget`."""
        return self._write(lambda transaction: forget(transaction, account_id))

    def ask(self, pending: PendingConsent, now: datetime) -> asyncio.Future[None]:
        """See `TokenStore.ask`."""
        sealed = self._seal(
            {
                "account": pending.account_id,
                "binding": pending.binding,
                "secret": pending.secret,
                "redirect_uri": pending.redirect_uri,
            }
        )
        row = {
            "state": _state_key(pending.state),
            "account_id": pending.account_id,
            "sealed": sealed,
            "expires": micros(pending.expires),
        }

        def work(transaction: Transaction) -> None:
            transaction.core.execute(delete(consent).where(consent.c.expires <= micros(now)))
            _require_account(transaction, pending.account_id)
            transaction.core.execute(insert(consent).values(**row))

        return self._write(work)

    async def asked(self, state: str) -> PendingConsent | None:
        """See `TokenStore.asked`."""
        found = select(consent).where(consent.c.state == _state_key(state))
        row = await self._read(lambda reader: reader.core.execute(found).first())
        return None if row is None else self._pending(row, state)

    def take(self, state: str) -> asyncio.Future[bool]:
        """See `TokenStore.take`."""
        taken = delete(consent).where(consent.c.state == _state_key(state))
        return self._write(lambda transaction: transaction.core.execute(taken).rowcount > 0)

    # Inside

    def _row(self, grant: Grant) -> dict[str, Any]:
        secrets = {
            "account": grant.account_id,
            "binding": grant.binding,
            "refresh_token": grant.refresh_token,
            "access_token": grant.access_token,
        }
        return {
            "account_id": grant.account_id,
            "binding": grant.binding,
            "sealed": self._seal(secrets),
            "expires": _maybe_micros(grant.expires),
            "refresh_expires": _maybe_micros(grant.refresh_expires),
            "granted": _maybe_micros(grant.granted),
            "refreshed": _maybe_micros(grant.refreshed),
            "refused": grant.refused,
            "version": grant.version,
        }

    def _grant(self, row: Row[Any]) -> Grant:
        secrets = self._open(row.sealed, row.account_id, row.binding)
        return Grant(
            account_id=row.account_id,
            binding=row.binding,
            refresh_token=secrets["refresh_token"],
            access_token=secrets["access_token"],
            expires=maybe_moment(row.expires),
            refresh_expires=maybe_moment(row.refresh_expires),
            granted=maybe_moment(row.granted),
            refreshed=maybe_moment(row.refreshed),
            refused=row.refused,
            version=row.version,
        )

    def _pending(self, row: Row[Any], state: str) -> PendingConsent:
        secrets = self._open(row.sealed, row.account_id, None)
        return PendingConsent(
            state=state,
            account_id=row.account_id,
            binding=secrets["binding"],
            secret=secrets["secret"],
            redirect_uri=secrets["redirect_uri"],
            expires=moment(row.expires),
        )

    def _seal(self, secrets: dict[str, Any]) -> bytes:
        if self._keyring is None:
            raise InvalidInput(Fault("keys", "there is none to seal tokens with", "open the store with a keyring"))
        return self._keyring.seal(json.dumps(secrets).encode())

    def _open(self, sealed: bytes, account_id: int, binding: str | None) -> dict[str, Any]:
        """What was sealed for this account, and for no other."""
        if self._keyring is None:
            raise InvalidInput(Fault("keys", "there is none to open tokens with", "open the store with a keyring"))
        found: dict[str, Any] = json.loads(self._keyring.open(sealed))
        if found["account"] != account_id or binding not in (None, found["binding"]):
            raise InvalidInput(Fault("database", "holds tokens of another account in the place of this one's"))
        return found
