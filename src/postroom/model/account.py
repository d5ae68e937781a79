"""An account: a way to send (SPEC section 2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum


class AccountKind(StrEnum):
    """How an account sends."""

    SMTP = "smtp"
    SANDBOX = "sandbox"  # captures, sends nothing


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
    OFF = "off"


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
    host: str = ""
    port: int = 587
    security: Security = Security.AUTO
    verification: Verification = Verification.FULL
    ca_bundle: str = ""  # PEM; added to the system's for this account alone
    username: str = ""
    password: str = field(default="", repr=False)
    allow_clear_password: bool = False
    helo_name: str = ""
    connect_timeout: timedelta = timedelta(seconds=30)
    command_timeout: timedelta = timedelta(seconds=60)
    end_of_data_timeout: timedelta = timedelta(minutes=10)
    connect_retry: timedelta = timedelta(seconds=30)
    reconnect_interval: timedelta = timedelta(seconds=5)
    max_connections: int = 4
    messages_per_connection: int = 100
    recipients_per_transaction: int = 100
    idle_timeout: timedelta = timedelta(seconds=30)
