"""For which definition of an account something was given: with another client or mailbox it is worth nothing."""

from __future__ import annotations

import hashlib
import json

from ..model.account import Account, OAuthFlow
from .assertions import key_of
from .endpoints import endpoints


def binding(account: Account) -> str:
    """A digest of all that tokens depend on. A new client secret or certificate leaves it as it is: consents outlive
    them. A refresh token that a person gives in the account's field makes another."""
    oauth, where = account.oauth, endpoints(account)
    of_service = key_of(account)["client_email"] if oauth.flow is OAuthFlow.SERVICE_ACCOUNT else ""
    depends_on = [
        account.kind, oauth.flow, oauth.client_id, where.token, where.scope, account.username, oauth.refresh_token,
        of_service,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()[:32]
