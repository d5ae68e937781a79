"""Settings: each declared once, with its description and default (SPEC section 3).

The environment (`POSTROOM_RETENTION`, `POSTROOM_SMTP__MAX_SIZE`) wins over the TOML file (`postroom.toml` in the data
folder, or the file that `POSTROOM_CONFIG` names), the file over what is stored in the database, that over the default.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ..mime.header import unstructured
from .database import DatabaseUrl
from .describe import AT_START, OF_THE_MACHINE, Effect, SettingDoc, describe
from .origin import Origin
from .quantities import (
    Count,
    Duration,
    MailAddress,
    Recipients,
    RetrySchedule,
    Size,
    Texts,
    WebBase,
    address_and_port,
    duration,
    fault,
    in_ascii,
    size,
)

__all__ = [
    "DnsSettings",
    "Effect",
    "ListenerSettings",
    "NotificationSettings",
    "Origin",
    "RelaySettings",
    "SettingDoc",
    "Settings",
    "SmtpSettings",
    "StagingGuardSettings",
]

#: Names of the environment that start with POSTROOM_ and are no settings.
OTHER_NAMES = frozenset({"POSTROOM_CONFIG", "POSTROOM_CRASH_AT", "POSTROOM_KEYS", "POSTROOM_REQUIRE_PEERS"})


class ListenerSettings(BaseModel):
    """One address on which mail is taken by SMTP."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field("127.0.0.1", description="IP address to listen on; `0.0.0.0` or `::` for all")
    port: int = Field(2525, ge=0, le=65535, description="TCP port; 0 takes any that is free")
    tls: Literal["none", "starttls", "implicit"] = Field("none", description="encryption: none, starttls or implicit")
    certificate: str = Field("", description="file with the certificate chain (PEM); read again when it changes")
    key: str = Field("", description="file with the certificate's private key (PEM)")
    profile: Literal["strict", "devices"] = Field(
        "strict",
        description="what is asked of clients; devices: any EHLO name, and a bare LF in content becomes CRLF",
    )
    networks: tuple[str, ...] = Field(
        (), description="IP networks whose clients may connect; empty: all. The profile devices needs it"
    )
    allow_clear_login: bool = Field(
        False, description="take passwords without encryption (profile devices; loopback clients always may)"
    )
    minimum_tls: Literal["1.0", "1.1", "1.2", "1.3"] = Field(
        "1.2", description="oldest version of TLS; 1.0 and 1.1, which are unsafe, only with the profile devices"
    )

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            return str(ipaddress.ip_address(value.strip("[]")))
        except ValueError:
            raise fault(f"{value!r} is not an IP address", "write 127.0.0.1, 0.0.0.0 or ::") from None

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(str(ipaddress.ip_network(value.strip())) for value in values)
        except ValueError as error:
            raise fault(str(error), "write 192.168.7.0/24, 10.0.0.9 or fd00::/8") from None

    @model_validator(mode="after")
    def _has_its_certificate(self) -> ListenerSettings:
        if self.tls != "none" and not (self.certificate and self.key):
            raise fault(f"tls is {self.tls!r} and there is no certificate", "name the files in certificate and key")
        return self

    @model_validator(mode="after")
    def _is_lenient_to_known_devices_only(self) -> ListenerSettings:
        if self.profile == "devices":
            if not self.networks:
                raise fault("the profile devices has no networks", "name the devices' networks in `networks`")
            if any(ipaddress.ip_network(network).prefixlen == 0 for network in self.networks):
                raise fault("networks takes in every address", "name the devices' own networks")
        elif self.allow_clear_login:
            raise fault("allow_clear_login is on", 'set profile = "devices", which needs `networks`')
        elif self.minimum_tls in ("1.0", "1.1"):
            raise fault(f"minimum_tls is {self.minimum_tls}", 'write 1.2, or set profile = "devices"')
        return self


class SmtpSettings(BaseModel):
    """SMTP submission (SPEC section 4, door 1)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listeners: tuple[ListenerSettings, ...] = Field(
        (ListenerSettings(),), description="where mail is taken by SMTP", json_schema_extra=OF_THE_MACHINE
    )
    hostname: str = Field(
        "", max_length=255, description="name in the greeting; empty: `hostname`", json_schema_extra=OF_THE_MACHINE
    )
    max_size_bytes: Size = Field(size("35MiB"), description="largest message that is taken")
    max_header_bytes: Size = Field(size("1MiB"), description="largest header section that is taken")
    max_recipients: Count = Field(1000, description="most recipients of one message")
    max_errors: Count = Field(20, description="bad commands after which a connection is closed")
    max_auth_failures: Count = Field(10, description="failed logins after which a connection is closed")
    max_connections_per_client: Count = Field(
        50, description="most connections of one IP address at a time; loopback has no limit"
    )
    idle_timeout: Duration = Field(duration("5m"), description="longest silence of a client")
    command_line_bytes: Count = Field(4096, ge=512, description="longest command line, in octets")
    auth_line_bytes: Count = Field(12288, ge=512, description="longest line while a client logs in, in octets")
    max_mime_depth: Count = Field(100, description="deepest nesting of MIME parts that is taken, by any door")
    max_login_failures_per_minute: Count = Field(
        10, description="failed logins within a minute, of one address or for one name, after which none is looked at"
    )
    content_timeout: Duration = Field(
        duration("10m"), description="longest time for the content of a message, beside what its size may take"
    )
    content_rate_bytes: Count = Field(
        8000, description="slowest rate of content, in octets a second: its size may take so much longer"
    )


class RelaySettings(BaseModel):
    """What is taken from relays; more ends the connection."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_reply_line_bytes: Count = Field(8192, ge=512, description="longest line of a relay's reply, in octets")
    max_reply_bytes: Count = Field(262144, ge=512, description="longest reply of a relay, all its lines, in octets")


class DnsSettings(BaseModel):
    """Whom direct delivery asks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    servers: Texts = Field(
        (),
        description="DNS servers: IP addresses, separated by commas, with a port where it is not 53; empty: this "
        "machine's",
    )

    @field_validator("servers")
    @classmethod
    def _are_addresses(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            try:
                address_and_port(value)
            except ValueError:
                mend = "write 192.0.2.53, 127.0.0.1:5353, fd00::53 or [::1]:5353"
                raise fault(f"{value!r} is not the address of a server", mend) from None
        return values

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The servers as address and port."""
        return tuple(address_and_port(value) for value in self.servers)


class NotificationSettings(BaseModel):
    """Reports about mail that came by SMTP or sendmail (SPEC section 3)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: Literal["sender", "postmaster", "both", "none"] = Field(
        "sender", description="who is told of mail that could not be delivered; postmaster and both need `postmaster`"
    )
    sender: MailAddress = Field("", description="From address of reports; empty: MAILER-DAEMON at `hostname`")
    account: str = Field("", max_length=64, description="account that reports go through; empty: by routing")
    delay_warning: Duration = Field(
        duration("4h"), description="age at which the sender is told, once, that a message still waits; 0s: never"
    )
    max_returned_bytes: Size = Field(
        size("1MiB"),
        description="largest message that comes back whole where its sender asks (RET=FULL); else its header",
    )


class AlertSettings(BaseModel):
    """Mail to the person who looks after this gateway, when something is wrong with it (SPEC section 3)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: MailAddress = Field("", description="address that alerts go to; empty: there are none")
    account: str = Field("", max_length=64, description="account that alerts go through; empty: one that can send")
    oldest: Duration = Field(
        duration("1h"), description="age of the oldest mail that waits on an account from which it is told; 0s: never"
    )
    bounce_percent: int = Field(
        20, ge=0, le=100, description="percent bounced of what an account sent within an hour; 0: never"
    )
    free_bytes: Size = Field(size("1GiB"), description="room on the disk of the data folder under which it is told")


class ArchiveSettings(BaseModel):
    """A copy of everything (SPEC section 3, docs/archive.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str = Field(
        "",
        max_length=4096,
        description="folder, by its absolute path, that gets every accepted message as a file; empty: none",
    )

    bcc: MailAddress = Field("", description="address that gets a blind copy of every accepted message; empty: none")

    @field_validator("bcc")
    @classmethod
    def _is_ascii(cls, value: str) -> str:
        return in_ascii(value)

    @field_validator("folder")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        if value and (not value.startswith("/") or any(ord(ch) < 32 for ch in value)):
            raise fault(f"{value!r} is not an absolute path", "write it like /var/lib/postroom-archive")
        return value


class StagingGuardSettings(BaseModel):
    """Mail leaves for listed recipients alone (SPEC section 3, docs/staging.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    only_to: Recipients = Field(
        (),
        description="addresses and domains, separated by commas, to which mail may leave; `*.example.org`: subdomains",
    )
    redirect_to: MailAddress = Field("", description="address that gets all other mail")
    subject_prefix: str = Field(
        "[STAGING]", max_length=200, description="what the subject of redirected mail begins with; empty: nothing"
    )
    enabled: bool = Field(False, description="redirect mail that is for nobody in `only_to`; needs `redirect_to`")

    @field_validator("redirect_to")
    @classmethod
    def _is_ascii(cls, value: str) -> str:
        return in_ascii(value)

    @field_validator("subject_prefix")
    @classmethod
    def _stands_in_a_subject(cls, value: str) -> str:
        try:
            unstructured("Subject", value)
        except ValueError:
            raise fault("has a control character", "write one line of text") from None
        return value

    @field_validator("enabled")
    @classmethod
    def _has_somewhere_to_redirect_to(cls, value: bool, info: ValidationInfo) -> bool:
        if value and "redirect_to" in info.data and not info.data["redirect_to"]:
            raise fault("is on and there is no redirect_to", 'name one: redirect_to = "inbox@staging.example.org"')
        return value


class Settings(BaseSettings):
    """All settings, immutable. `load` reads file and environment, `with_stored` adds what is stored; what is given to
    the constructor counts as given at the start.
    """

    model_config = SettingsConfigDict(
        env_prefix="POSTROOM_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)

    data: Path = Field(
        Path("data"),
        description="folder of the database, the keys and the control socket (0700)",
        json_schema_extra=OF_THE_MACHINE,
    )
    database: DatabaseUrl = Field(
        DatabaseUrl(),
        description="PostgreSQL database, as `postgresql://...`; empty: SQLite in the data folder",
        json_schema_extra=OF_THE_MACHINE,
    )
    hostname: str = Field(
        "",
        max_length=255,
        description="this machine's name in greetings, HELO and Received; empty: its own",
        json_schema_extra=OF_THE_MACHINE,
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged")
    log_format: Literal["auto", "text", "json"] = Field("auto", description="text or json; auto: text on a terminal")
    postmaster: MailAddress = Field("", description="address of the person who looks after this gateway")
    force_postmaster: bool = Field(
        False,
        description="`postmaster` replaces the sender of all mail, but where an account has a fixed sender; it is no "
        "application's address or allowed sender then",
    )
    notifications: NotificationSettings = Field(NotificationSettings(), description="reports to senders")
    alerts: AlertSettings = Field(AlertSettings(), description="alerts about the gateway itself")
    staging_guard: StagingGuardSettings = Field(StagingGuardSettings(), description="mail to listed recipients alone")
    archive: ArchiveSettings = Field(ArchiveSettings(), description="a copy of everything")
    public_url: WebBase = Field(
        "",
        description="what links to this gateway begin with, as people and providers reach it; empty: none. Consents "
        "that a program begins may lead back below it (docs/oauth.md)",
    )
    smtp: SmtpSettings = Field(SmtpSettings(), description="SMTP submission")
    relay: RelaySettings = Field(RelaySettings(), description="the relays that mail is sent by")
    dns: DnsSettings = Field(DnsSettings(), description="the DNS")
    sending_enabled: bool = Field(True, description="master switch: off, nothing leaves; mail is still taken")
    hold_pending_at_start: bool = Field(
        False, description="hold what is pending at start until it is released", json_schema_extra=AT_START
    )
    batch_interval: Duration = Field(
        timedelta(0), description="0s: send as soon as accepted; else every so often what is due then (1s at least)"
    )
    retry_schedule: RetrySchedule = Field(
        "1m, 5m*2, 15m, 1h*4, 4h", description="waits between the tries of a delivery; the last repeats"
    )
    retry_window: Duration = Field(
        duration("2d"),
        description="how long a delivery is tried, from when it is first due; stands still while it is held and while "
        "sending is off",
    )
    give_up: Duration = Field(duration("14d"), description="age at which what is left expires; never stands still")
    account_sleep: RetrySchedule = Field(
        "30s, 1m, 5m, 15m, 30m", description="how long a failing account sleeps; the last repeats"
    )
    subject_search: bool = Field(
        False,
        description="index the words of subjects, so that messages are found by them; what is there is indexed in the "
        "background. It costs room and a little time for each message",
    )
    retention: Duration = Field(
        duration("30d"), description="how long ended messages are kept, and events of accounts and settings"
    )
    content_retention: Duration = Field(
        duration("30d"), description="how long the content of ended messages is kept; not longer than `retention`"
    )
    suppress_hard_bounces: bool = Field(
        False,
        description="put recipients on the suppression list of whom a relay says that they do not exist; what is about "
        "policy, spam, size, sender or a full mailbox puts nobody there",
    )
    suppress_hard_bounces_for: Duration = Field(
        duration("90d"), description="how long they stay on it; 0s: until somebody takes them off"
    )
    max_connections_in_all: Count = Field(200, description="most open outgoing connections")

    @field_validator("force_postmaster")
    @classmethod
    def _has_a_postmaster_to_force(cls, value: bool, info: ValidationInfo) -> bool:
        if value and not info.data.get("postmaster"):
            raise fault("is on and there is no postmaster", 'name one: postmaster = "postmaster@example.org"')
        return value

    @field_validator("notifications")
    @classmethod
    def _has_a_postmaster_to_tell(cls, value: NotificationSettings, info: ValidationInfo) -> NotificationSettings:
        if value.to in ("postmaster", "both") and not info.data.get("postmaster"):
            raise fault(
                f"`to` is {value.to!r} and there is no postmaster", 'name one: postmaster = "postmaster@example.org"'
            )
        return value

    @field_validator("batch_interval")
    @classmethod
    def _is_no_tick(cls, value: timedelta) -> timedelta:
        if timedelta(0) < value < timedelta(seconds=1):
            raise fault("is shorter than a second", "write 1s at least, or 0s to send as soon as accepted")
        return value

    @classmethod
    def load(cls, data: Path | None = None, **overrides: Any) -> Settings:
        """The settings of this process; `data` and `overrides` win over the environment.

        Raises:
            InvalidInput: one fault for each setting that can't be read, with its mend.
        """
        from .sources import load  # here: it imports this module's class

        return load(cls, data, overrides)

    @classmethod
    def describe(cls) -> tuple[SettingDoc, ...]:
        """Every setting with its name, environment variable, form, default and description."""
        return describe(cls)

    def with_stored(self, stored: Mapping[str, object]) -> Settings:
        """These settings, with the values in `stored` (by the settings' names) wherever nothing else gives one.

        Raises:
            InvalidInput: one fault for each value that does not fit, with its mend.
        """
        from .sources import with_stored

        return with_stored(self, stored)

    def keeping(self, names: Collection[str], old: Settings) -> Settings:
        """These settings, with those called `names` as in `old`; neither has stored values.

        Raises:
            InvalidInput: they do not fit together.
        """
        from .sources import keeping

        return keeping(self, names, old)

    def origin(self, name: str) -> Origin:
        """Where the value of the setting `name` comes from."""
        return self._origins.get(name, Origin.DEFAULT)

    def value(self, name: str) -> Any:
        """The value of the setting `name` as JSON: durations and sizes as people write them."""
        value: Any = self.model_dump(mode="json")
        for part in name.split("."):
            value = value[part]
        return value

    def model_post_init(self, context: Any) -> None:
        """What was given to the constructor was given at the start, unless a source says that it comes from there."""
        super().model_post_init(context)
        self._origins = dict.fromkeys(given_names(self), Origin.GIVEN)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # `load` reads the others, and keeps what came from where

    @property
    def forced_postmaster(self) -> str:
        """The address that replaces everybody's sender; "" if none does."""
        return self.postmaster if self.force_postmaster else ""

    @property
    def database_path(self) -> Path:
        """The SQLite file, where `database` names no other."""
        return self.data / "postroom.db"

    @property
    def store(self) -> str | Path:
        """Where the store is: the URL with its password, or the SQLite file."""
        return self.database.reveal() or self.database_path

    @property
    def control_socket(self) -> Path:
        """The socket on which the running gateway takes commands."""
        return self.data / "control.sock"


def given_names(model: BaseModel, prefix: str = "") -> list[str]:
    """The settings that were given to `model` and the models in it."""
    names: list[str] = []
    for name in model.model_fields_set:
        value = getattr(model, name)
        names += given_names(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else [prefix + name]
    return names


def unknown_environment(names: dict[str, str] | None = None) -> list[str]:
    """Names like POSTROOM_RETNTION that belong to no setting."""
    known = {entry.environment for entry in Settings.describe()} | OTHER_NAMES
    groups = ("DNS", "SMTP", "SMTP__LISTENERS", "RELAY", "NOTIFICATIONS", "ALERTS", "STAGING_GUARD", "ARCHIVE")
    known |= {f"POSTROOM_{group}" for group in groups}
    given = os.environ if names is None else names
    return sorted(name for name in given if name.startswith("POSTROOM_") and name.upper() not in known)
