"""Faults of an account that show only when its fields are looked at together."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from ..errors import Fault
from ..model.account import (
    TOKEN_MECHANISMS,
    Account,
    AccountKind,
    AddressFamily,
    Authentication,
    Fallback,
    Mechanism,
    OAuthFlow,
    OAuthProvider,
    PopSecurity,
    ProxyType,
    Security,
    Verification,
)
from ..net.graph import AT_ONCE
from . import pem

Faults = Iterator[Fault]

_TLS_PORT = 465


def faults_together(account: Account) -> list[Fault]:
    """Every fault, in the order of the form."""
    return [fault for look in _LOOKS for fault in look(account)]


def _needs_a_relay(account: Account) -> Faults:
    if account.kind is AccountKind.SMTP and not account.host:
        yield Fault("host", "there is none", "write a DNS name or an IP address, as in smtp.example.org")


def _addresses_agree(account: Account) -> Faults:
    if not account.local_address:
        return
    version = ipaddress.ip_address(account.local_address).version
    wanted = {AddressFamily.IPV4: 4, AddressFamily.IPV6: 6}.get(account.address_family, version)
    if wanted != version:
        mend = f"give an IPv{wanted} address, or set address_family to ipv{version} or any"
        yield Fault("local_address", f"is IPv{version} and only IPv{wanted} may be used", mend)


def _login_is_whole(account: Account) -> Faults:
    password = account.authentication is Authentication.PASSWORD
    if password and not account.password:
        yield Fault("password", "there is none for the user name", "give it, or set authentication to none")
    if password and not account.username:
        yield Fault("username", "there is none for the password", "give it, or set authentication to none")
    if account.authentication is Authentication.OAUTH2 and not account.username:
        yield Fault("username", "there is none", "give the mailbox that the token is for")
    carries_token = account.mechanism in TOKEN_MECHANISMS
    if password and carries_token:
        yield Fault("mechanism", f"{account.mechanism.value} carries no password", "set authentication to oauth2")
    if account.authentication is Authentication.OAUTH2 and not carries_token:
        if account.mechanism is not Mechanism.AUTO:
            mend = "write auto, xoauth2 or oauthbearer"
            yield Fault("mechanism", f"{account.mechanism.value} carries no token", mend)


def _pop_login_is_whole(account: Account) -> Faults:
    if account.authentication is not Authentication.POP:
        return
    if not account.pop.username:
        yield Fault("pop_username", "there is none", "give the name of the mailbox that opens the relay")
    if not account.pop.password:
        yield Fault("pop_password", "there is none", "give the password of that mailbox")
    is_clear = account.pop.security is PopSecurity.NONE and not account.pop.apop
    if is_clear and not account.allow_clear_password:
        mend = "set pop_security to stls or tls, switch pop_apop on, or allow_clear_password"
        yield Fault("pop_apop", "is off, and without encryption the password would go in clear", mend)
    if account.pop.apop and " " in account.pop.username:
        yield Fault("pop_username", "has a space, which APOP cannot carry", "switch pop_apop off, or name it otherwise")
    if account.pop.validity <= account.pop.interval:
        fault = "is over before SMTP may start"
        yield Fault("pop_validity", fault, "make it longer than pop_interval")


def _tokens_can_be_had(account: Account) -> Faults:
    oauth = account.oauth
    if account.authentication is not Authentication.OAUTH2 and account.kind is not AccountKind.GRAPH:
        return
    if account.kind is AccountKind.GRAPH:
        if oauth.provider is not OAuthProvider.MICROSOFT:
            yield Fault("oauth_provider", f"is {oauth.provider.value}", "write microsoft: Graph takes no other tokens")
        yield from _graph_is_whole(account)
    if oauth.flow is OAuthFlow.SERVICE_ACCOUNT and account.kind is not AccountKind.GRAPH:
        if oauth.provider is not OAuthProvider.GOOGLE:
            yield Fault("oauth_flow", "service-account is Google's", "set oauth_provider to google")
        if not oauth.service_account:
            yield Fault("oauth_service_account", "there is none", "give the JSON file of its key")
        return
    if not oauth.client_id:
        yield Fault("oauth_client_id", "there is none", "give the id of the application that you registered")
    yield from _endpoints(account)
    yield from _certificate(account)
    if oauth.flow is OAuthFlow.CLIENT_CREDENTIALS and not (oauth.client_secret or oauth.certificate):
        yield Fault("oauth_client_secret", "there is none", "give it, or a certificate with its key")
    is_google = oauth.provider is OAuthProvider.GOOGLE
    if is_google and oauth.flow is OAuthFlow.CLIENT_CREDENTIALS:
        mend = "set oauth_flow to service-account, with the JSON file of its key"
        yield Fault("oauth_flow", "client-credentials is nothing that Google has", mend)
    if is_google and oauth.certificate:
        yield Fault("oauth_certificate", "is nothing that Google takes", "give oauth_client_secret")


def _certificate(account: Account) -> Faults:
    oauth = account.oauth
    if oauth.certificate and not oauth.certificate_key:
        yield Fault("oauth_certificate_key", "there is none for the certificate", "give its private key")
    elif oauth.certificate and not pem.are_a_pair(oauth.certificate, oauth.certificate_key):
        yield Fault("oauth_certificate_key", "is not the key of the certificate", "give the two that belong together")
    elif oauth.certificate and not pem.signs(oauth.certificate_key, oauth.provider is not OAuthProvider.MICROSOFT):
        yield Fault("oauth_certificate_key", "is of a kind that signs nothing here", "give one of an RSA key")


def _graph_is_whole(account: Account) -> Faults:
    if not account.graph.mailbox and not account.graph.draft_only:
        yield Fault("mailbox", "there is none", "give the address of the mailbox that sends")
    if account.max_connections > AT_ONCE:
        fault = f"is {account.max_connections}, and Graph takes {AT_ONCE} requests of a mailbox at a time"
        yield Fault("max_connections", fault, f"write {AT_ONCE} or less")
    if account.oauth.flow is OAuthFlow.SERVICE_ACCOUNT:
        yield Fault("oauth_flow", "service-account is Google's", "set client-credentials, or a flow with a consent")


def _endpoints(account: Account) -> Faults:
    oauth = account.oauth
    custom = oauth.provider is OAuthProvider.CUSTOM
    needed = {"oauth_token_url": oauth.token_url}
    if oauth.flow is OAuthFlow.AUTHORIZATION_CODE:
        needed["oauth_authorize_url"] = oauth.authorize_url
    if oauth.flow is OAuthFlow.DEVICE_CODE:
        needed["oauth_device_url"] = oauth.device_url
    for name, url in needed.items():
        if custom and not url:
            yield Fault(name, "there is none", "give the endpoint of the provider")
    if custom and not oauth.scopes:
        yield Fault("oauth_scopes", "there are none", "give the scopes that allow sending")
    urls = (oauth.token_url, oauth.authorize_url, oauth.device_url)
    if not custom and any(urls):
        name = ("oauth_token_url", "oauth_authorize_url", "oauth_device_url")[[bool(url) for url in urls].index(True)]
        yield Fault(name, f"{oauth.provider.value} has its own", "leave it out, or set oauth_provider to custom")
    is_microsoft = oauth.provider is OAuthProvider.MICROSOFT
    if is_microsoft and oauth.flow is OAuthFlow.CLIENT_CREDENTIALS and not oauth.tenant:
        yield Fault("oauth_tenant", "there is none", "give the tenant's id or a domain of it")


def _encryption_agrees(account: Account) -> Faults:
    if account.authentication is Authentication.OAUTH2 and account.security is Security.NONE:
        yield Fault("security", "is none, and a token goes over no such connection", "set starttls, tls or auto")
    if account.port == _TLS_PORT and account.security in (Security.STARTTLS, Security.STARTTLS_IF_OFFERED):
        fault = f"is {account.security.value}, and port {_TLS_PORT} speaks TLS from the first byte"
        yield Fault("security", fault, "write tls or auto, or set the port to 587")
    if account.verification is Verification.FINGERPRINT and not account.fingerprints:
        yield Fault("fingerprints", "there is none", "give the SHA-256 fingerprint of the relay's certificate")
    if account.client_certificate and not account.client_key:
        yield Fault("client_key", "there is none for the certificate", "give its private key")
    elif account.client_certificate and not pem.are_a_pair(account.client_certificate, account.client_key):
        yield Fault("client_key", "is not the key of the certificate", "give the two that belong together")
    if account.client_certificate and account.security is Security.NONE:
        yield Fault("client_certificate", "is never shown without encryption", "set security to starttls or tls")


def _proxy_is_whole(account: Account) -> Faults:
    proxy = account.proxy
    if proxy.type is ProxyType.NONE:
        return
    if not proxy.host:
        yield Fault("proxy_host", "there is none", "give the name or address of the proxy")
    if proxy.use_credentials and not proxy.username:
        yield Fault("proxy_username", "there is none", "give it, or switch proxy_use_credentials off")
    is_socks4 = proxy.type in (ProxyType.SOCKS4, ProxyType.SOCKS4A)
    if is_socks4 and proxy.password:
        yield Fault("proxy_password", f"{proxy.type.value} knows none", "leave it out, or use socks5")
    if not is_socks4 and proxy.use_credentials and not proxy.password:
        yield Fault("proxy_password", "there is none for the user name", "give it, or switch proxy_use_credentials off")
    if is_socks4 and ":" in account.host:
        yield Fault("proxy_type", f"is {proxy.type.value}, which knows no IPv6 address", "use socks5 or http-connect")
    if proxy.type is not ProxyType.HTTP_CONNECT:
        # RFC 1929 gives each one octet for its length, and says nothing of an encoding.
        for name, value in (("proxy_username", proxy.username), ("proxy_password", proxy.password)):
            if not value.isascii() or len(value) > 255:
                mend = "give one of at most 255 characters of ASCII, or use http-connect"
                yield Fault(name, f"can't be sent by {proxy.type.value}", mend)
    elif ":" in proxy.username and not proxy.domain:
        yield Fault("proxy_username", "holds a colon, which Basic can't send", "give another, or proxy_domain for NTLM")
    if proxy.domain and proxy.type is not ProxyType.HTTP_CONNECT:
        yield Fault("proxy_domain", f"{proxy.type.value} knows none", "leave it out, or use http-connect")


def _keys_have_names(account: Account) -> Faults:
    dkim = account.dkim
    if not (dkim.rsa_key or dkim.ed25519_key):
        return
    if not dkim.selector:
        yield Fault("dkim_selector", "there is none for the key", "give the name under which DNS has the public key")
    if dkim.rsa_key and dkim.ed25519_key:
        if not dkim.ed25519_selector:
            yield Fault("dkim_ed25519_selector", "there is none", "give the second key a selector of its own")
        elif dkim.ed25519_selector == dkim.selector:
            fault = f"is {dkim.selector}, as that of the RSA key"
            yield Fault("dkim_ed25519_selector", fault, "give each key a selector of its own")
    elif dkim.ed25519_selector:
        yield Fault("dkim_ed25519_selector", "has no use with one key", "give the selector in dkim_selector")


def _fallback_is_elsewhere(account: Account) -> Faults:
    if account.fallback is Fallback.ACCOUNTS and not account.fallback_accounts:
        yield Fault("fallback_accounts", "there are none", "name them, in order")
    if any(name.lower() == account.name.lower() for name in account.fallback_accounts):
        yield Fault("fallback_accounts", f"names {account.name} itself", "name other accounts")


def _window_ends_in_time(account: Account) -> Faults:
    retry = account.retry
    if retry.window is not None and retry.give_up is not None and retry.window > retry.give_up:
        yield Fault("give_up", "comes before the end of the retry window", "make it as long as retry_window at least")


_LOOKS: tuple[Callable[[Account], Faults], ...] = (
    _needs_a_relay,
    _addresses_agree,
    _login_is_whole,
    _pop_login_is_whole,
    _tokens_can_be_had,
    _encryption_agrees,
    _proxy_is_whole,
    _keys_have_names,
    _fallback_is_elsewhere,
    _window_ends_in_time,
)
