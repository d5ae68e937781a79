"""What an account was allowed that is not safe: told wherever the account is shown, and by `check`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from ..model.account import (
    OLD_TLS_VERSIONS,
    Account,
    AccountKind,
    Authentication,
    PopSecurity,
    ProxyType,
    Security,
    Verification,
)


@dataclass(frozen=True, slots=True)
class Risk:
    """What the account does, and the options of `accounts edit` that take it back."""

    what: str
    mend: str


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def risks(account: Account) -> Iterator[Risk]:
    """The risks of `account`; none of those that are others' choice, as at the hosts of direct delivery."""
    if account.kind is not AccountKind.SMTP:
        return
    is_encrypted = account.security is not Security.NONE
    if account.verification is Verification.OFF:
        what = "does not verify the relay's certificate: anybody on the way may read mail and password"
        yield Risk(what, "--verification full, with --ca-bundle if need be")
    old = [version for version in account.tls_versions if version in OLD_TLS_VERSIONS]
    if old and is_encrypted:
        yield Risk(f"may speak TLS {' and '.join(old)}, which is no longer safe", "--tls-versions 1.2,1.3")
    proxy = account.proxy
    if proxy.password and not proxy.domain and not _is_loopback(proxy.host):
        what = "sends the proxy's password to it in clear: whoever is in between can read it"
        is_http = proxy.type is ProxyType.HTTP_CONNECT
        yield Risk(what, "--proxy-domain NAME (NTLM)" if is_http else "--proxy-host 127.0.0.1, a tunnel's end")
    if account.username and account.allow_clear_password:
        yield Risk("may send its password in clear", "--no-allow-clear-password")
    if account.authentication is Authentication.POP and account.pop.security is PopSecurity.NONE:
        what = "logs in by APOP without encryption: who listens can try passwords until one fits"
        if not account.pop.apop:
            what = "sends the password of its POP3 login in clear"
        yield Risk(what, "--pop-security stls")
