"""`postroom check`: findings about settings, folder, keys, database, accounts, applications and listeners."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from ..accounts.risks import risks
from ..accounts.unbuilt import refusal
from ..config import ListenerSettings, Settings, unknown_environment
from ..errors import Fault
from ..model.account import Account, AccountKind, Mechanism, ProxyType, Security
from ..model.application import Application
from ..model.circuit import Circuit, Health
from ..model.quantity import format_size
from ..net.own_name import own_name
from ..policy.postmaster import named_by
from ..policy.routing import may_use
from ..queue.alerts import EXPIRY_DAYS, Expiry
from ..secrets import CREDENTIAL, KEYS_FILE, KEYS_VARIABLE
from ..store import integrity
from .expiries import expiries
from .ports import describe_holder

#: Free room under which mail may soon be refused, and under which it is.
LOW_BYTES = 1024**3
VERY_LOW_BYTES = 100 * 1024**2

_RESOLUTION_SECONDS = 5.0


class Level(StrEnum):
    """How bad a finding is; an error makes `postroom check` end with status 1."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: what was looked at, what was found, and how to mend it."""

    level: Level
    subject: str
    what: str
    mend: str = ""


async def check(
    settings: Settings,
    accounts: Sequence[Account],
    applications: Sequence[Application],
    circuits: Mapping[int, Circuit],
    *,
    is_running: bool,
    unusable: Mapping[str, Fault] = MappingProxyType({}),
) -> list[Finding]:
    """All findings, by subject; `circuits` says by id how accounts are. `is_running`: this process is the gateway, and
    its listeners hold their ports.

    `unusable` are stored settings that do not count, with the reason.
    """
    found = [*_settings(settings, unusable), *_folder(settings), *_keys(settings), *_disk(settings)]
    found += await _database(settings)
    for account in accounts:
        found += await _account(account)
        found += await _greeting(account, settings)
        if refusal(account) is None:
            found += _circuit(account, circuits.get(account.id, Circuit()))
    found += _applications(accounts, applications)
    found += _postmaster(settings, applications)
    found += _notifications(settings, accounts)
    found += [_expiring(expiry, datetime.now(UTC)) for expiry in await expiries(settings, accounts)]
    for listener in settings.smtp.listeners:
        found += _listener(listener, is_running)
    return found


def _settings(settings: Settings, unusable: Mapping[str, Fault]) -> Iterator[Finding]:
    for name, fault in unusable.items():
        what = f"what is stored for {name} does not count: {fault}"
        yield Finding(Level.ERROR, "settings", what, f"postroom settings reset {name}")
    if not settings.sending_enabled:
        yield Finding(Level.WARNING, "settings", "sending is switched off", "postroom settings set sending_enabled on")
    if any(name.startswith("staging_guard.") for name in unusable):
        what = "the staging guard can't be read, so nothing leaves"
        yield Finding(Level.ERROR, "settings", what, "set staging_guard anew, as said above")
    if settings.staging_guard.enabled:
        what = f"the staging guard redirects to {settings.staging_guard.redirect_to} what is for nobody that it lists"
        yield Finding(Level.NOTE, "settings", what, "postroom settings set staging_guard.enabled off")
    unknown = unknown_environment()
    for name in unknown:
        yield Finding(
            Level.WARNING, "settings", f"{name} is set and is no setting", "`postroom docs settings` lists them"
        )
    if not unknown:
        yield Finding(Level.OK, "settings", "environment and file can be read")


def _folder(settings: Settings) -> Iterator[Finding]:
    for path in (settings.data, settings.database_path, settings.data / KEYS_FILE):
        try:
            status = path.stat()
        except OSError:
            continue
        wanted = 0o700 if stat.S_ISDIR(status.st_mode) else 0o600
        if status.st_mode & 0o077:
            yield Finding(Level.ERROR, "folder", f"{path} is open to other users", f"chmod {wanted:o} {path}")
        elif status.st_uid != os.geteuid():
            mend = f"chown {os.geteuid()} {path}"
            yield Finding(Level.ERROR, "folder", f"{path} belongs to user {status.st_uid}", mend)
        else:
            yield Finding(Level.OK, "folder", f"{path} is closed to other users")


def _keys(settings: Settings) -> Iterator[Finding]:
    if os.environ.get(KEYS_VARIABLE):
        yield Finding(Level.OK, "keys", f"given in {KEYS_VARIABLE}")
    elif (settings.data / KEYS_FILE).is_file():
        mend = f"copy {settings.data / KEYS_FILE} to a safe place of its own: without it no stored password can be read"
        yield Finding(Level.NOTE, "keys", "lie beside the database", mend)
    elif (Path(os.environ.get("CREDENTIALS_DIRECTORY", "")) / CREDENTIAL).is_file():
        yield Finding(Level.OK, "keys", "given in the credentials directory")
    else:
        yield Finding(Level.ERROR, "keys", "there are none", "put back the keys file")


def _disk(settings: Settings) -> Iterator[Finding]:
    free = shutil.disk_usage(settings.data).free
    shown = f"{free // 1024**2}MiB are free for {settings.data}"
    if free < VERY_LOW_BYTES:
        yield Finding(Level.ERROR, "disk", shown, "make room: mail is refused when it is full")
    elif free < LOW_BYTES:
        yield Finding(Level.WARNING, "disk", shown, f"make room: keep {format_size(LOW_BYTES)} free at least")
    else:
        yield Finding(Level.OK, "disk", shown)


async def _postgresql(url: str) -> list[Finding]:
    from ..store import postgresql  # psycopg costs memory where nobody needs it

    what, unsafe, doubtful = await asyncio.to_thread(postgresql.look, url)
    faults = [
        Finding(Level.ERROR, "database", fault, "`postroom docs install` says what it must be") for fault in unsafe
    ]
    doubts = [Finding(Level.WARNING, "database", doubt, "look at the server's postgresql.conf") for doubt in doubtful]
    return faults + doubts + ([Finding(Level.OK, "database", f"is {what}")] if not faults else [])


async def _database(settings: Settings) -> list[Finding]:
    if settings.database:
        return await _postgresql(settings.database.reveal())
    try:
        faults = await integrity.faults(settings.database_path)
    except integrity.Unfinished:
        return [Finding(Level.NOTE, "database", "is too large to be checked whole here; no fault was met")]
    mend = "stop the gateway, keep a copy of the data folder, and go back to the last backup"
    return [Finding(Level.ERROR, "database", fault, mend) for fault in faults] or [
        Finding(Level.OK, "database", "is sound")
    ]


async def _account(account: Account) -> list[Finding]:
    subject = f"account {account.name}"
    found = []
    edit = f"postroom accounts edit {account.name}"
    if not account.enabled:
        found.append(Finding(Level.NOTE, subject, "is off: its mail waits", f"{edit} --enabled"))
    refused = refusal(account)
    if refused is not None:
        found.append(Finding(Level.ERROR, subject, f"does not send: {refused[0]}", refused[1]))
    if account.kind is not AccountKind.SMTP:
        return found
    found += [Finding(Level.WARNING, subject, risk.what, f"{edit} {risk.mend}") for risk in risks(account)]
    if account.username and not account.allow_clear_password and account.security is Security.NONE:
        is_clear = account.mechanism in (Mechanism.PLAIN, Mechanism.LOGIN)
        when = "will not log in" if is_clear else "logs in only where the relay offers SCRAM or CRAM-MD5"
        what = f"has a password and no encryption: it {when}"
        found.append(Finding(Level.ERROR if is_clear else Level.WARNING, subject, what, f"{edit} --security starttls"))
    found.append(await _resolution(account, subject))
    return found


def _looked_up(account: Account) -> tuple[str, int, str]:
    """What this machine must resolve to send by `account`, and the option that names it."""
    proxy = account.proxy
    if proxy.type in (ProxyType.NONE, ProxyType.SOCKS4):
        return account.host, account.port, "--host"
    return proxy.host, proxy.port, "--proxy-host"


async def _greeting(account: Account, settings: Settings) -> list[Finding]:
    """Whether it greets with a name: hosts of strangers look at that, and a relay may."""
    if account.kind not in (AccountKind.SMTP, AccountKind.DIRECT):
        return []
    subject, edit = f"account {account.name}", f"postroom accounts edit {account.name} --helo-name NAME"
    name = account.helo_name or settings.hostname or await own_name()
    if "." in name and not name.startswith("["):
        return []
    if account.kind is AccountKind.DIRECT:
        what = "greets with an address and no name, which many hosts refuse"
        return [Finding(Level.WARNING, subject, what, f"{edit}, the name that the PTR of its address has")]
    if account.helo_name:
        return []  # a literal that was chosen
    what = "greets with its address, as this machine has no full name: some relays refuse that"
    return [Finding(Level.NOTE, subject, what, f"{edit}; or for all accounts the setting hostname")]


def _circuit(account: Account, circuit: Circuit) -> Iterator[Finding]:
    subject = f"account {account.name}"
    wake = f"postroom accounts wake {account.name}"
    advice = f"{circuit.advice}; then " if circuit.advice else ""
    if circuit.health is Health.NEEDS_ATTENTION:
        what = f"needs attention and sends nothing: {circuit.reason}"
        yield Finding(Level.ERROR, subject, what, f"{advice}postroom accounts edit {account.name}, or {wake}")
    elif circuit.health is Health.SLEEPING and circuit.until is not None:
        what = f"sleeps until {circuit.until.isoformat(timespec='seconds')}: {circuit.reason}"
        yield Finding(Level.NOTE if circuit.by_hand else Level.WARNING, subject, what, f"{advice}{wake}")
    elif circuit.health is Health.SLOWED:
        yield Finding(Level.NOTE, subject, f"is slowed: {circuit.reason}", circuit.advice)


async def _resolution(account: Account, subject: str) -> Finding:
    host, port, option = _looked_up(account)
    try:
        loop = asyncio.get_running_loop()
        answer = loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = {entry[4][0] for entry in await asyncio.wait_for(answer, _RESOLUTION_SECONDS)}
    except TimeoutError:
        return Finding(Level.WARNING, subject, f"{host} was not resolved in time", "look at this machine's DNS")
    except OSError as error:
        what = f"{host} is not resolved: {error.strerror or error}"
        return Finding(Level.ERROR, subject, what, f"postroom accounts edit {account.name} {option} NAME")
    return Finding(Level.OK, subject, f"{host} is {', '.join(sorted(map(str, addresses)))}")


def _applications(accounts: Sequence[Account], applications: Sequence[Application]) -> Iterator[Finding]:
    if not any(account.kind is not AccountKind.SANDBOX for account in accounts):
        mend = "postroom accounts add NAME --host HOST ... --for APPLICATION"
        yield Finding(Level.NOTE, "accounts", "there is no real one: nothing leaves", mend)
    for application in applications:
        subject = f"application {application.name}"
        edit = f"postroom applications edit {application.name}"
        if not application.enabled:
            yield Finding(Level.NOTE, subject, "is off: it may not submit", f"{edit} --enabled")
            continue
        match = next((account for account in accounts if may_use(application, account)), None)
        if match is None:
            yield Finding(Level.ERROR, subject, "may use no account: its mail is refused", f"{edit} --account NAME")
        elif match.kind is AccountKind.SANDBOX:
            what = f"sends into the sandbox {match.name}: nothing leaves"
            yield Finding(Level.NOTE, subject, what, f"{edit} --account NAME")
        if not application.senders:
            what = "has no allowed senders: its mail is refused"
            yield Finding(Level.ERROR, subject, what, f"{edit} --allow-sender PATTERN")
        elif "*" in application.senders:
            real = match is not None and match.kind is not AccountKind.SANDBOX
            mend = f"{edit} --remove-sender '*' --allow-sender '*@example.org'"
            yield Finding(Level.WARNING if real else Level.NOTE, subject, "may send as anybody", mend)
        yield from _open_networks(application, subject)


def _postmaster(settings: Settings, applications: Sequence[Application]) -> Iterator[Finding]:
    subject = "postmaster"
    forced = settings.forced_postmaster
    if names := named_by(forced, applications):
        what = f"{forced} is forced as everybody's sender, and is {', '.join(names)}"
        yield Finding(Level.ERROR, subject, what, "give the postmaster an address of its own")
    elif forced:
        yield Finding(Level.OK, subject, f"{forced} is everybody's sender, but where an account has a fixed one")
    elif open_ones := [one.name for one in applications if one.enabled and set(one.senders) <= {"*"}]:
        what = f"is not forced as the sender, and no allowed senders are named for {', '.join(open_ones)}"
        mend = "name them; or postroom settings set postmaster ADDRESS, and force_postmaster true"
        yield Finding(Level.NOTE, subject, what, mend)


def _expiring(expiry: Expiry, now: datetime) -> Finding:
    what = f"{expiry.what} is good until {expiry.at.date().isoformat()}"
    left = expiry.at - now
    if left > timedelta(days=max(EXPIRY_DAYS)):
        return Finding(Level.OK, "certificates", what)
    return Finding(Level.ERROR if left <= timedelta(0) else Level.WARNING, "certificates", what, expiry.mend)


def _notifications(settings: Settings, accounts: Sequence[Account]) -> Iterator[Finding]:
    wanted = settings.notifications
    subject = "notifications"
    if wanted.to == "none":
        what = "nobody is told of mail that could not be delivered"
        yield Finding(Level.NOTE, subject, what, "postroom settings set notifications.to sender")
        return
    if not wanted.account:
        return
    account = next((account for account in accounts if account.name.lower() == wanted.account.lower()), None)
    if account is None:
        what = f"shall go through the account {wanted.account}, which does not exist: they go as their messages do"
        mend = f"postroom accounts add {wanted.account}, or set notifications.account"
        yield Finding(Level.ERROR, subject, what, mend)
    elif not account.enabled:
        what = f"go through the account {account.name}, which is off: they wait"
        yield Finding(Level.WARNING, subject, what, f"postroom accounts edit {account.name} --enabled")
    elif account.kind is AccountKind.SANDBOX:
        what = f"go into the sandbox {account.name}: nobody gets them"
        yield Finding(Level.WARNING, subject, what, "set notifications.account to a real account")
    else:
        yield Finding(Level.OK, subject, f"go through the account {account.name}")


def _open_networks(application: Application, subject: str) -> Iterator[Finding]:
    if not application.passwordless:
        return
    for text in application.networks:
        network = ipaddress.ip_network(text)
        if not network.is_private and network.num_addresses > 256:
            what = f"takes mail from all of {text} without a password"
            yield Finding(Level.WARNING, subject, what, "name narrower networks, or use a password")


def _listener(listener: ListenerSettings, is_running: bool) -> Iterator[Finding]:
    subject = f"listener {listener.address}:{listener.port}"
    for file in filter(None, (listener.certificate, listener.key)):
        if not os.access(file, os.R_OK):
            yield Finding(Level.ERROR, subject, f"{file} can't be read", "give this user the right to read it")
    if not ipaddress.ip_address(listener.address).is_loopback and listener.tls == "none":
        what = "takes mail from other machines without encryption"
        yield Finding(Level.WARNING, subject, what, "set tls to starttls or implicit, with certificate and key")
    if is_running:
        yield Finding(Level.OK, subject, "takes mail")
    elif listener.port and not _is_free(listener):
        what = f"the port is {describe_holder(listener.port)}"
        yield Finding(Level.ERROR, subject, what, "end that process, or set another port in smtp.listeners")


def _is_free(listener: ListenerSettings) -> bool:
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listener.address, listener.port))
        except OSError:
            return False
    return True
