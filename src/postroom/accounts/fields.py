"""The fields of an account, each declared once: how it is written, read and shown, and what it means (SPEC section 2).

The options of commands, the schema of `/v1`, the files of `accounts export` and docs/fields.md are made of
these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ..model import fields as read
from ..model.account import (
    Account,
    AccountKind,
    AddressFamily,
    Authentication,
    Cloud,
    Fallback,
    GraphRecipients,
    Mechanism,
    OAuthFlow,
    OAuthProvider,
    PopSecurity,
    ProxyType,
    Security,
    Verification,
)
from ..model.fields import FieldSpec
from ..model.limits import LIMIT_FIELDS, WhenLimited
from ..model.quantity import format_size
from ..policy.patterns import parse_patterns
from . import pem, values

_LONGEST = timedelta(days=1)
_LONGEST_WINDOW = timedelta(days=365)
_SHORTEST = timedelta(milliseconds=100)
_ZERO = timedelta(0)

_SMTP = frozenset({"smtp"})
_DIRECT = frozenset({"direct"})
_GRAPH = frozenset({"graph"})
_DIALOGUE = frozenset({"smtp", "direct"})  # what speaks SMTP
_LOGIN = frozenset({"smtp", "graph"})  # what has a server of its own that it logs in to
_SIGNING = frozenset({"smtp", "direct", "sandbox"})  # of mail by Graph Exchange Online signs
_NETWORK = frozenset({"smtp", "graph", "direct"})

Parse = Callable[[object], Any]


def _text(name: str, parse: Parse, description: str, form: str = "text", **more: Any) -> FieldSpec:
    return FieldSpec(name, parse, description, form, **more)


def _switch(name: str, description: str, **more: Any) -> FieldSpec:
    return FieldSpec(name, read.switch, description, "yes, no", **more)


def _choice(name: str, parse: Parse, kind: Any, description: str, **more: Any) -> FieldSpec:
    return FieldSpec(name, parse, description, ", ".join(kind), **more)


def _count(name: str, least: int, most: int, description: str, **more: Any) -> FieldSpec:
    return FieldSpec(name, read.number(least, most), description, "number", **more)


def _time(name: str, least: timedelta, description: str, **more: Any) -> FieldSpec:
    return FieldSpec(name, read.duration(least, _LONGEST), description, "duration", **more)


def _secret(name: str, description: str, parse: Parse = read.secret, form: str = "password", **more: Any) -> FieldSpec:
    return FieldSpec(name, parse, f"{description}; never shown", form, secret=True, **more)


def _patterns(name: str) -> Parse:
    return lambda value: parse_patterns(read.texts(value), name)


_NEVER_SSL = "SSL 2 and 3 are broken and are not spoken here"
_SECURITY = read.choice(Security, {"ssl": Security.TLS}, {"sslv2": _NEVER_SSL, "sslv3": _NEVER_SSL})
_PROXY = read.choice(
    ProxyType,
    {"socks5h": ProxyType.SOCKS5, "http": ProxyType.HTTP_CONNECT, "connect": ProxyType.HTTP_CONNECT},
)
_AUTHENTICATION = read.choice(
    Authentication,
    {"anonymous": Authentication.NONE, "oauth": Authentication.OAUTH2, "pop": Authentication.POP},
    {"ntlm": "NTLM is spoken to proxies only"},
)

_MAIN = (
    _text("name", read.name, "unique without regard to case: 1-64 letters, digits, -, _, ."),
    _choice("kind", read.choice(AccountKind), AccountKind, "a relay, Microsoft Graph, to each MX, or capture only"),
    _text("description", read.line(), "shown in lists"),
    _switch("enabled", "off: what waits for the account goes on waiting"),
    _text("owner", read.name, "system (for all), or the console user whose alone it is", "name"),
    _text("preset", values.preset, "provider whose host, port, security and limits it has", "name", kinds=_LOGIN),
    _text("preset_region", values.region, "region, where the provider has several", "name", kinds=_LOGIN),
    _text("host", values.host_or_empty, "DNS name or IP address of the relay", "host", kinds=_SMTP),
    _count("port", 1, 65535, "TCP port of the relay", kinds=_SMTP),
    _count("mx_port", 1, 65535, "TCP port of every MX; another than 25 only in a network of your own", kinds=_DIRECT),
    _time("connect_timeout", _SHORTEST, "for resolution, TCP, proxy and TLS together; STARTTLS, STLS as long again",
          kinds=_NETWORK),
    _time("command_timeout", _SHORTEST, "longest wait for a reply", kinds=_NETWORK),
    _time("end_of_data_timeout", _SHORTEST, "longest wait for the reply to the content", kinds=_NETWORK),
    _time("connect_retry", _SHORTEST, "wait after a first failed connect", kinds=_NETWORK),
    _time("reconnect_interval", _ZERO, "wait after an unexpected close", kinds=_NETWORK),
    _text("charset", values.charset, "of text composed here; what it can't encode goes out as UTF-8", "charset"),
    _text("local_address", values.ip_address, "IP address of this machine to send from; empty: any", "address",
          kinds=_NETWORK),
    _choice("address_family", read.choice(AddressFamily), AddressFamily, "addresses that are tried; any: both, raced",
            kinds=_NETWORK),
    _text("helo_name", values.helo_name, "name in EHLO; empty: this machine's", "name", kinds=_DIALOGUE),
    _switch("dynamic", "a message may bring a connection of its own, where its application may too", kinds=_SMTP),
    _count("template_cache", 0, 100_000, "compiled templates that are kept; 0: none", path=("templates", "cache")),
    _switch("fail_if_template_not_found", "off: a call of a template that is not there goes out as it stands",
            path=("templates", "fail_if_not_found")),
)  # fmt: skip

_LOG_IN = (
    _choice("authentication", _AUTHENTICATION, Authentication,
            "how it logs in; what another way has stored is forgotten", kinds=_SMTP),
    _choice("mechanism", read.choice(Mechanism), Mechanism, "of the login; auto: the best one offered", kinds=_SMTP),
    _text("username", read.line(), "name to log in with; empty: no login", kinds=_SMTP),
    _secret("password", "password to log in with", kinds=_SMTP),
    _switch("allow_clear_password", "send the password even without encryption", kinds=_SMTP),
    _choice("oauth_provider", read.choice(OAuthProvider), OAuthProvider, "whose tokens", kinds=_LOGIN,
            path=("oauth", "provider")),
    _choice("oauth_flow", read.choice(OAuthFlow), OAuthFlow, "how tokens are come by", kinds=_LOGIN,
            path=("oauth", "flow")),
    _choice("oauth_cloud", read.choice(Cloud), Cloud, "Microsoft's national clouds", kinds=_LOGIN,
            path=("oauth", "cloud")),
    _text("oauth_tenant", values.tenant, "Microsoft tenant: its id or a domain of it", "tenant", kinds=_LOGIN,
          path=("oauth", "tenant")),
    _text("oauth_client_id", read.line(), "id of the registered application (client)", kinds=_LOGIN,
          path=("oauth", "client_id")),
    _secret("oauth_client_secret", "secret of the registered application", kinds=_LOGIN,
            path=("oauth", "client_secret")),
    _text("oauth_secret_expires", values.day, "day on which that secret expires; warned of 30, 7 and 1 days before",
          "date", kinds=_LOGIN, path=("oauth", "secret_expires")),
    _text("oauth_certificate", pem.certificates, "certificate instead of a client secret", "PEM", kinds=_LOGIN,
          path=("oauth", "certificate")),
    _secret("oauth_certificate_key", "private key of that certificate", pem.private_key, "PEM", kinds=_LOGIN,
            path=("oauth", "certificate_key")),
    _secret("oauth_service_account", "key file of a Google service account", pem.service_account, "JSON", kinds=_LOGIN,
            path=("oauth", "service_account")),
    _secret("oauth_refresh_token", "what the consent of a person gave", kinds=_LOGIN, path=("oauth", "refresh_token")),
    _text("oauth_authorize_url", values.web_address, "custom: where a person consents", "URL", kinds=_LOGIN,
          path=("oauth", "authorize_url")),
    _text("oauth_device_url", values.web_address, "custom: where device codes are given", "URL", kinds=_LOGIN,
          path=("oauth", "device_url")),
    _text("oauth_token_url", values.web_address, "custom: where tokens are given", "URL", kinds=_LOGIN,
          path=("oauth", "token_url")),
    _text("oauth_issuer", values.web_address, "custom: as whom the server names itself in answers; empty: not at all",
          "URL", kinds=_LOGIN, path=("oauth", "issuer")),
    _text("oauth_scopes", values.scopes, "scopes asked for; empty: the provider's for sending", "texts", kinds=_LOGIN,
          path=("oauth", "scopes")),
    _text("pop_host", values.host_or_empty, "POP3 server to log in to before SMTP; empty: the relay's host", "host",
          kinds=_SMTP, path=("pop", "host")),
    _count("pop_port", 1, 65535, "its TCP port: 110, or 995 with TLS", kinds=_SMTP, path=("pop", "port")),
    _choice("pop_security", read.choice(PopSecurity, {"starttls": PopSecurity.STLS, "ssl": PopSecurity.TLS}),
            PopSecurity, "its encryption, required, by the rules of this account's TLS", kinds=_SMTP,
            path=("pop", "security")),
    _text("pop_username", read.line(), "name to log in with there", kinds=_SMTP, path=("pop", "username")),
    _secret("pop_password", "password to log in with there", kinds=_SMTP, path=("pop", "password")),
    _switch("pop_apop",
            "log in by APOP, or not at all; off: the password goes as it is, encrypted or by allow_clear_password",
            kinds=_SMTP, path=("pop", "apop")),
    _time("pop_interval", _ZERO, "from the start of that login until SMTP may start", kinds=_SMTP,
          path=("pop", "interval")),
    _time("pop_validity", _SHORTEST, "how long one login serves", kinds=_SMTP, path=("pop", "validity")),
    _text("mailbox", values.mail_address, "mailbox that Graph sends from", "address", kinds=_GRAPH,
          path=("graph", "mailbox")),
)  # fmt: skip

_ENCRYPTION = (
    _choice("security", _SECURITY, Security,
            "encryption; auto: TLS on 465, else STARTTLS if offered, required once a password would be sent",
            kinds=_SMTP),
    _text("tls_versions", values.tls_versions, "versions of TLS that may be spoken", "versions", kinds=_SMTP),
    _choice("verification", read.choice(Verification), Verification, "check of the relay's certificate", kinds=_SMTP),
    _text("ca_bundle", pem.certificates, "certificates trusted for this account beside the system's", "PEM",
          kinds=_LOGIN),
    _text("fingerprints", values.fingerprints, "SHA-256 of the certificates that are taken", "fingerprints",
          kinds=_SMTP),
    _text("server_name", values.host_or_empty, "name that TLS asks for and checks (SNI); empty: the host", "host",
          kinds=_SMTP),
    _text("client_certificate", pem.certificates, "certificate to show to the relay, with its chain", "PEM",
          kinds=_SMTP),
    _secret("client_key", "private key of that certificate", pem.private_key, "PEM", kinds=_SMTP),
)  # fmt: skip

_THROUGH = (
    _choice("proxy_type", _PROXY, ProxyType, "proxy in between; none: what was stored of one is forgotten",
            kinds=_LOGIN, path=("proxy", "type")),
    _text("proxy_host", values.host_or_empty, "its DNS name or IP address", "host", kinds=_LOGIN,
          path=("proxy", "host")),
    _count("proxy_port", 1, 65535, "its TCP port", kinds=_LOGIN, path=("proxy", "port")),
    _switch("proxy_use_credentials", "log in there", kinds=_LOGIN, path=("proxy", "use_credentials")),
    _text("proxy_username", read.line(), "name to log in with there", kinds=_LOGIN, path=("proxy", "username")),
    _secret("proxy_password", "password to log in with there", kinds=_LOGIN, path=("proxy", "password")),
    _text("proxy_domain", read.line(64), r"Windows domain: the login is NTLM's DOMAIN\user", kinds=_LOGIN,
          path=("proxy", "domain")),
)  # fmt: skip

_SENDER = (
    _text("full_name", read.line(), "name of the sender of composed mail that has none", path=("sender", "full_name")),
    _text("email_address", values.mail_address, "address of the sender of composed mail that has none", "address",
          path=("sender", "address")),
    _text("reply_address", values.mail_address, "Reply-To of composed mail; empty: the e-mail address", "address",
          path=("sender", "reply_address")),
    _text("fixed_sender", values.mail_address, "address that replaces the sender of all mail of the account",
          "address", path=("sender", "fixed")),
    _text("fixed_sender_name", read.line(), "display name with it; empty: the one that stands there",
          path=("sender", "fixed_name")),
    _switch("fixed_sender_keeps_reply", "the replaced sender goes into Reply-To where there is none",
            path=("sender", "keep_original_as_reply")),
    _switch("fixed_sender_not_private", "mail with Sensitivity: Private keeps its sender",
            path=("sender", "private_keeps_sender")),
    _text("dkim_domain", values.domain_or_empty, "domain that signs (DKIM)", "host", kinds=_SIGNING,
          path=("dkim", "domain")),
    _text("dkim_selector", values.selector_or_empty, "selector of the RSA key, or of the only one", "name",
          kinds=_SIGNING, path=("dkim", "selector")),
    _secret("dkim_rsa_key", "private RSA key that signs", pem.rsa_key, "PEM", kinds=_SIGNING, path=("dkim", "rsa_key")),
    _text("dkim_ed25519_selector", values.selector_or_empty, "selector of the Ed25519 key beside an RSA key", "name",
          kinds=_SIGNING, path=("dkim", "ed25519_selector")),
    _secret("dkim_ed25519_key", "private Ed25519 key that signs", pem.ed25519_key, "PEM",
            kinds=_SIGNING, path=("dkim", "ed25519_key")),
    _choice("graph_recipients", read.choice(GraphRecipients), GraphRecipients,
            "header addresses outside the envelope: taken out, or the message is refused", kinds=_GRAPH,
            path=("graph", "recipients")),
    FieldSpec("graph_draft_from", read.size(0, 3 * 1024 * 1024), "size from which mail is sent by way of a draft",
              "size", kinds=_GRAPH, path=("graph", "draft_from"), show=format_size),
    _switch("draft_only", "leave a draft, send nothing", kinds=_GRAPH, path=("graph", "draft_only")),
    _text("draft_mailbox", values.mail_address, "mailbox of the drafts and their sender; empty: the postmaster",
          "address", kinds=_GRAPH, path=("graph", "draft_mailbox")),
)  # fmt: skip

_WHOLE_WINDOW = read.optional(read.duration(_SHORTEST, _LONGEST_WINDOW), ("default", "none"))

_ROUTING = (
    _text("sender_patterns", _patterns("sender_patterns"), "whose mail it takes; empty: everybody's", "patterns"),
    _text("recipient_patterns", _patterns("recipient_patterns"), "to whom it takes mail; empty: to everybody",
          "patterns"),
    _choice("fallback", read.choice(Fallback), Fallback, "who takes its mail when it has failed for a while"),
    _text("fallback_accounts", values.names, "with fallback accounts: their names, in order", "names"),
    _time("fall_back_after", _ZERO, "how long it has failed by then"),
    _text("retry_schedule", values.schedule, "waits between tries, as in 1m, 5m*2, 1h; empty: the setting's",
          "schedule", path=("retry", "schedule")),
    _text("retry_window", _WHOLE_WINDOW, "how long a delivery is tried; default: the setting's",
          "duration or default", path=("retry", "window")),
    _text("give_up", _WHOLE_WINDOW, "age at which what is left expires; default: the setting's",
          "duration or default", path=("retry", "give_up")),
)  # fmt: skip

_LIMITS = (
    *LIMIT_FIELDS,
    _choice("when_limited", read.choice(WhenLimited), WhenLimited,
            "mail while a limit is reached: waits, goes to the next match, or is refused", ),
    _text("quota_group", values.name_or_empty, "accounts of one group share its limits", "name"),
    _count("max_connections", 1, 1000, "most connections at a time"),
    _count("messages_per_connection", 1, 1_000_000, "messages before reconnecting"),
    _count("recipients_per_transaction", 1, 100_000, "most recipients in one transaction"),
    _time("idle_timeout", _ZERO, "how long an idle connection is kept"),
)  # fmt: skip


def _on_tab(tab: str, specs: tuple[FieldSpec, ...]) -> tuple[FieldSpec, ...]:
    return tuple(replace(spec, tab=tab) for spec in specs)


#: Every field that may be set, in the order in which it is shown.
ACCOUNT_FIELDS: dict[str, FieldSpec] = {
    spec.name: spec
    for spec in (
        *_MAIN,
        *_on_tab("Authentication", _LOG_IN),
        *_on_tab("Encryption", _ENCRYPTION),
        *_on_tab("Proxy", _THROUGH),
        *_on_tab("Sender", _SENDER),
        *_on_tab("Routing", _ROUTING),
        *_on_tab("Limits", _LIMITS),
    )
}

#: The default of each field that has one.
DEFAULTS: dict[str, object] = read.defaults(ACCOUNT_FIELDS.values(), Account) | {"kind": AccountKind.SMTP}
