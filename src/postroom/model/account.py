"""An account: a way to send (SPEC section 2).

Fields are known outside by flat names (`proxy_host`); here those of one subject are a group (`account.proxy.host`).
What every transaction reads lies in the account itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum

from .limits import NO_LIMITS, Limits, WhenLimited

#: Versions of TLS that are no longer safe (RFC 8996).
OLD_TLS_VERSIONS = frozenset({"1.0", "1.1"})

#: `Account.owner` of an account that is for all.
SYSTEM = "system"


class AccountKind(StrEnum):
    """How an account sends."""

    SMTP = "smtp"
    GRAPH = "graph"  # Microsoft Graph
    DIRECT = "direct"  # to the MX of each recipient's domain
    SANDBOX = "sandbox"  # captures, sends nothing


class AddressFamily(StrEnum):
    """Which addresses of the relay are tried; any: both, raced (RFC 8305)."""

    ANY = "any"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


class Authentication(StrEnum):
    """How an account shows who it is (SPEC section 2.2)."""

    NONE = "none"
    PASSWORD = "password"
    OAUTH2 = "oauth2"
    POP = "pop-before-smtp"


class Mechanism(StrEnum):
    """The SASL mechanism that an account logs in with."""

    AUTO = "auto"
    SCRAM_SHA_256 = "scram-sha-256"
    SCRAM_SHA_1 = "scram-sha-1"
    CRAM_MD5 = "cram-md5"
    PLAIN = "plain"
    LOGIN = "login"
    XOAUTH2 = "xoauth2"
    OAUTHBEARER = "oauthbearer"


#: Mechanisms that carry a token rather than a password.
TOKEN_MECHANISMS = frozenset({Mechanism.XOAUTH2, Mechanism.OAUTHBEARER})


class Security(StrEnum):
    """Encryption of the connection (SPEC section 2.3)."""

    AUTO = "auto"  # implicit on 465, else STARTTLS if offered, and required once a password would be sent
    NONE = "none"
    STARTTLS_IF_OFFERED = "starttls-if-offered"
    STARTTLS = "starttls"
    TLS = "tls"


class Verification(StrEnum):
    """How far the relay's certificate is checked."""

    FULL = "full"
    FINGERPRINT = "fingerprint"  # it is one of `fingerprints`, whoever signed it
    OFF = "off"


class ProxyType(StrEnum):
    """What stands between here and the relay (SPEC section 2.4)."""

    NONE = "none"
    SOCKS4 = "socks4"
    SOCKS4A = "socks4a"
    SOCKS5 = "socks5"
    HTTP_CONNECT = "http-connect"


class PopSecurity(StrEnum):
    """Encryption of the POP3 login."""

    NONE = "none"
    STLS = "stls"
    TLS = "tls"


class OAuthProvider(StrEnum):
    """Whose endpoints are asked for tokens; custom: the account's own."""

    MICROSOFT = "microsoft"
    GOOGLE = "google"
    CUSTOM = "custom"


class OAuthFlow(StrEnum):
    """How tokens are come by."""

    AUTHORIZATION_CODE = "authorization-code"  # with PKCE
    DEVICE_CODE = "device-code"
    CLIENT_CREDENTIALS = "client-credentials"
    SERVICE_ACCOUNT = "service-account"  # of Google


class Cloud(StrEnum):
    """Microsoft's clouds, each with endpoints of its own."""

    GLOBAL = "global"
    US_GOVERNMENT = "us-government"
    US_DOD = "us-dod"
    CHINA = "china"


class Fallback(StrEnum):
    """Who takes the mail of an account that has failed for a while (SPEC section 2.8)."""

    NEXT_MATCH = "next-match"
    NONE = "none"
    ACCOUNTS = "accounts"  # those of `fallback_accounts`, in their order


class GraphRecipients(StrEnum):
    """What becomes of addresses in To and Cc that are not in the envelope: Graph would send to them too."""

    TRIM = "trim"
    REFUSE = "refuse"


class KeyKind(StrEnum):
    """DKIM keys to sign with. Every verifier knows RSA; Ed25519 is short and quick, and not yet read by all."""

    RSA = "rsa"
    ED25519 = "ed25519"
    BOTH = "both"


def _secret() -> str:
    """A field that is stored sealed and never shown."""
    secret: str = field(default="", repr=False, metadata={"secret": True})
    return secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """What connections go through. With `domain`, the login is NTLM's `DOMAIN\\user`."""

    type: ProxyType = ProxyType.NONE
    host: str = ""
    port: int = 1080
    use_credentials: bool = False
    username: str = ""
    password: str = _secret()
    domain: str = ""


#: Connections go straight.
NO_PROXY = Proxy()


@dataclass(frozen=True, slots=True, kw_only=True)
class PopLogin:
    """The POP3 login that opens the relay: SMTP may start `interval` after it began, and it serves for `validity`."""

    host: str = ""
    port: int = 110
    security: PopSecurity = PopSecurity.NONE
    username: str = ""
    password: str = _secret()
    apop: bool = True
    interval: timedelta = timedelta(milliseconds=5)
    validity: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth:
    """Where tokens come from and who asks for them. Certificate and key are PEM, `service_account` Google's JSON.

    `secret_expires` is a day (as in 2027-05-31), which nobody but the provider and its customer knows.
    """

    provider: OAuthProvider = OAuthProvider.MICROSOFT
    flow: OAuthFlow = OAuthFlow.AUTHORIZATION_CODE
    cloud: Cloud = Cloud.GLOBAL
    tenant: str = ""
    client_id: str = ""
    client_secret: str = _secret()
    secret_expires: str = ""
    certificate: str = ""
    certificate_key: str = _secret()
    service_account: str = _secret()
    refresh_token: str = _secret()
    authorize_url: str = ""
    device_url: str = ""
    token_url: str = ""
    issuer: str = ""  # that names itself in answers to a consent (RFC 9207)
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """As whom mail leaves (SPEC section 2.5); `fixed` replaces the sender of all mail of the account."""

    full_name: str = ""
    address: str = ""
    reply_address: str = ""
    fixed: str = ""
    fixed_name: str = ""
    keep_original_as_reply: bool = False
    private_keeps_sender: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dkim:
    """Signatures of mail that leaves: a key (PEM) of either kind, or one of both, each under its own selector."""

    domain: str = ""
    selector: str = ""
    rsa_key: str = _secret()
    ed25519_selector: str = ""
    ed25519_key: str = _secret()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The account's own rules of retrying; empty or None: as the settings say."""

    schedule: str = ""
    window: timedelta | None = None
    give_up: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What only Microsoft Graph has (SPEC section 2.9). From `draft_from` octets on, mail goes as a draft."""

    mailbox: str = ""
    recipients: GraphRecipients = GraphRecipients.TRIM
    draft_from: int = 2 * 1024 * 1024
    draft_only: bool = False
    draft_mailbox: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateUse:
    """How many compiled templates are kept, and whether a call of a template that is not there fails."""

    cache: int = 100
    fail_if_not_found: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account as stored: `position` orders the list (the topmost match wins); `revision` grows with each change."""

    id: int
    name: str
    kind: AccountKind
    position: int = 0
    revision: int = 1
    description: str = ""
    enabled: bool = True
    owner: str = SYSTEM
    host: str = ""
    port: int = 587
    mx_port: int = 25  # of direct delivery
    preset: str = ""
    preset_region: str = ""
    connect_timeout: timedelta = timedelta(seconds=30)
    command_timeout: timedelta = timedelta(seconds=60)
    end_of_data_timeout: timedelta = timedelta(minutes=10)
    connect_retry: timedelta = timedelta(seconds=30)
    reconnect_interval: timedelta = timedelta(seconds=5)
    charset: str = "utf-8"
    local_address: str = ""
    address_family: AddressFamily = AddressFamily.ANY
    helo_name: str = ""
    dynamic: bool = False
    authentication: Authentication = Authentication.NONE
    mechanism: Mechanism = Mechanism.AUTO
    username: str = ""
    password: str = _secret()
    allow_clear_password: bool = False
    oauth: OAuth = OAuth()
    pop: PopLogin = PopLogin()
    security: Security = Security.AUTO
    tls_versions: tuple[str, ...] = ("1.2", "1.3")
    verification: Verification = Verification.FULL
    ca_bundle: str = ""  # PEM; added to the system's for this account alone
    fingerprints: tuple[str, ...] = ()  # SHA-256 of certificates
    server_name: str = ""  # in SNI; empty: the host
    client_certificate: str = ""  # PEM, with its chain
    client_key: str = _secret()
    proxy: Proxy = NO_PROXY
    sender: Sender = Sender()
    dkim: Dkim = Dkim()
    templates: TemplateUse = TemplateUse()
    sender_patterns: tuple[str, ...] = ()  # none: all
    recipient_patterns: tuple[str, ...] = ()
    fallback: Fallback = Fallback.NEXT_MATCH
    fallback_accounts: tuple[str, ...] = ()
    fall_back_after: timedelta = timedelta(minutes=2)
    retry: Retry = Retry()
    limits: Limits = NO_LIMITS
    max_connections: int = 4
    messages_per_connection: int = 100
    recipients_per_transaction: int = 100
    idle_timeout: timedelta = timedelta(seconds=30)
    when_limited: WhenLimited = WhenLimited.WAIT
    quota_group: str = ""
    graph: Graph = Graph()

    @property
    def pop_host(self) -> str:
        """Where the POP3 login is made: at the relay, unless it names another host."""
        return self.pop.host or self.host


#: What is about the mail that an account takes, and how it leaves: no connection is made by it. Not here is what may
#: forbid connections altogether (`accounts.unbuilt`).
_NOT_OF_CONNECTIONS = (
    "position", "revision", "description", "sender", "dkim", "sender_patterns", "recipient_patterns", "fallback",
    "fallback_accounts", "fall_back_after", "retry", "limits", "recipients_per_transaction", "when_limited",
    "quota_group",
)  # fmt: skip


def connects_alike(one: Account, other: Account) -> bool:
    """Whether connections of both are made and kept in the same way."""
    return replace(other, **{name: getattr(one, name) for name in _NOT_OF_CONNECTIONS}) == one
