"""What expires: certificates of listeners and of accounts, and secrets of applications registered for OAuth 2."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from ..config import Settings
from ..model.account import Account
from ..oauth.consent import certificate_expires, secret_expires
from ..oauth.endpoints import uses_tokens
from ..queue.alerts import Expiry


def expires(pem: bytes) -> datetime:
    """When the first of the certificates in `pem` expires.

    Raises:
        ValueError: there is none that can be read.
    """
    from cryptography import x509  # here: heavy, and seldom needed

    return min(certificate.not_valid_after_utc for certificate in x509.load_pem_x509_certificates(pem))


async def expiries(settings: Settings, accounts: Sequence[Account]) -> list[Expiry]:
    """What is known to expire; what can't be read is for `check` to tell."""
    return await asyncio.to_thread(lambda: [*_of_listeners(settings), *_of_accounts(accounts)])


def _of_listeners(settings: Settings) -> Iterator[Expiry]:
    files = dict.fromkeys(listener.certificate for listener in settings.smtp.listeners if listener.certificate)
    for file in files:
        try:
            at = expires(Path(file).read_bytes())
        except (OSError, ValueError):
            continue
        yield Expiry(f"the certificate {file} of the listeners", at, "put a new one in its place; it is read at once")


def _of_accounts(accounts: Iterable[Account]) -> Iterator[Expiry]:
    for account in accounts:
        if uses_tokens(account):
            yield from _of_tokens(account)
        if not account.client_certificate:
            continue
        try:
            at = expires(account.client_certificate.encode())
        except ValueError:
            continue
        mend = f"postroom accounts edit {account.name} --client-certificate FILE, with its key"
        yield Expiry(f"the client certificate of account {account.name}", at, mend)


def _of_tokens(account: Account) -> Iterator[Expiry]:
    edit = f"postroom accounts edit {account.name}"
    secret, certificate = secret_expires(account), certificate_expires(account)
    if secret is not None:
        mend = f"{edit} --oauth-client-secret-file FILE --oauth-secret-expires DAY"
        yield Expiry(f"the OAuth client secret of account {account.name}", secret, mend)
    if certificate is not None:
        mend = f"{edit} --oauth-certificate FILE --oauth-certificate-key-file FILE, once it is known to the provider"
        yield Expiry(f"the OAuth certificate of account {account.name}", certificate, mend)
