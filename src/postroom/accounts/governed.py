"""Fields that mean something only under a choice made in another: refused without it, forgotten when it is taken back.

So no secret is kept that nothing uses, and no field stands there that is quietly ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Fault
from ..model import fields as read
from ..model.account import (
    Account,
    AccountKind,
    Authentication,
    Fallback,
    OAuthFlow,
    OAuthProvider,
    ProxyType,
    Verification,
)
from ..model.limits import Day
from .fields import ACCOUNT_FIELDS, DEFAULTS


@dataclass(frozen=True, slots=True)
class _Rule:
    """`fields` count while `applies`; `mend` says how it comes to apply."""

    fields: tuple[str, ...]
    applies: Callable[[Account], bool]
    mend: str


def _with_prefix(prefix: str) -> tuple[str, ...]:
    return tuple(name for name in ACCOUNT_FIELDS if name.startswith(prefix))


_RULES = (
    _Rule(
        ("username", "mechanism"),
        lambda account: account.authentication in (Authentication.PASSWORD, Authentication.OAUTH2),
        "set authentication to password or oauth2",
    ),
    _Rule(
        ("password",),
        lambda account: account.authentication is Authentication.PASSWORD,
        "set authentication to password, with a user name",
    ),
    _Rule(
        _with_prefix("oauth_"),
        lambda account: account.authentication is Authentication.OAUTH2 or account.kind is AccountKind.GRAPH,
        "set authentication to oauth2",
    ),
    _Rule(
        ("oauth_service_account",),
        lambda account: account.oauth.flow is OAuthFlow.SERVICE_ACCOUNT,
        "set oauth_flow to service-account",
    ),
    _Rule(
        ("oauth_refresh_token",),
        lambda account: account.oauth.flow in (OAuthFlow.AUTHORIZATION_CODE, OAuthFlow.DEVICE_CODE),
        "set oauth_flow to authorization-code or device-code",
    ),
    _Rule(
        ("oauth_client_secret",),
        lambda account: not account.oauth.certificate and account.oauth.flow is not OAuthFlow.SERVICE_ACCOUNT,
        "give either it or a certificate",
    ),
    _Rule(
        ("oauth_secret_expires",),
        lambda account: bool(account.oauth.client_secret),
        "give oauth_client_secret too",
    ),
    _Rule(
        ("oauth_issuer",),
        lambda account: account.oauth.provider is OAuthProvider.CUSTOM,
        "set oauth_provider to custom",
    ),
    _Rule(
        ("oauth_certificate_key",),
        lambda account: bool(account.oauth.certificate),
        "give oauth_certificate too",
    ),
    _Rule(
        _with_prefix("pop_"),
        lambda account: account.authentication is Authentication.POP,
        "set authentication to pop-before-smtp",
    ),
    _Rule(
        ("fingerprints",),
        lambda account: account.verification is Verification.FINGERPRINT,
        "set verification to fingerprint",
    ),
    _Rule(("client_key",), lambda account: bool(account.client_certificate), "give client_certificate too"),
    _Rule(
        tuple(name for name in _with_prefix("proxy_") if name != "proxy_type"),
        lambda account: account.proxy.type is not ProxyType.NONE,
        "set proxy_type",
    ),
    _Rule(
        ("proxy_username", "proxy_password", "proxy_domain"),
        lambda account: account.proxy.use_credentials,
        "switch proxy_use_credentials on",
    ),
    _Rule(
        ("fixed_sender_name", "fixed_sender_keeps_reply", "fixed_sender_not_private"),
        lambda account: bool(account.sender.fixed),
        "give the address in fixed_sender",
    ),
    _Rule(
        ("dkim_selector", "dkim_rsa_key", "dkim_ed25519_selector", "dkim_ed25519_key"),
        lambda account: bool(account.dkim.domain),
        "give dkim_domain, the domain that signs",
    ),
    _Rule(
        ("fallback_accounts",),
        lambda account: account.fallback is Fallback.ACCOUNTS,
        "set fallback to accounts",
    ),
    _Rule(("day_zone",), lambda account: account.limits.day is Day.CALENDAR, "set day to calendar"),
    _Rule(("draft_mailbox",), lambda account: account.graph.draft_only, "switch draft_only on"),
    _Rule(("preset_region",), lambda account: bool(account.preset), "name the preset"),
)


def apply(account: Account, given: Mapping[str, Any]) -> tuple[Account, list[Fault]]:
    """The account without what has no use now, and a fault for each field of `given` that has none.

    Fields that its kind does not have are faults whether given or not.
    """
    faults = []
    for spec in ACCOUNT_FIELDS.values():
        if spec.kinds and account.kind.value not in spec.kinds and spec.of(account) != DEFAULTS[spec.name]:
            mend = f"leave it out; accounts of kind {' and '.join(sorted(spec.kinds))} have it"
            faults.append(Fault(spec.name, f"is nothing that an account of kind {account.kind.value} has", mend))
    forgotten: dict[str, Any] = {}
    for rule in _RULES:
        if rule.applies(account):
            continue
        for name in rule.fields:
            default = DEFAULTS[name]
            if ACCOUNT_FIELDS[name].of(account) == default or name in forgotten:
                continue
            if given.get(name, default) != default:
                if all(fault.field != name for fault in faults):
                    faults.append(Fault(name, "has no use as things stand", rule.mend))
            else:
                forgotten[name] = default
    return read.changed(account, ACCOUNT_FIELDS, forgotten), faults
