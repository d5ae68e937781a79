"""Accounts and applications in the place of email-oauth2-proxy: what its configuration says, as fields of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..errors import Fault, InvalidInput
from .emailproxy_file import GLOBAL, Mailbox, ProxyFile, Server, Unsealed, is_on
from .presets import presets

#: Reads a file that the configuration names; raises InvalidInput.
ReadFile = Callable[[str], str]

#: Hosts of token endpoints, and the cloud they belong to.
_MICROSOFT = {
    "login.microsoftonline.com": "global",
    "login.windows.net": "global",
    "login.microsoftonline.us": "us-government",
    "login.partner.microsoftonline.cn": "china",
    "login.chinacloudapi.cn": "china",
}
_GOOGLE = frozenset({"oauth2.googleapis.com", "accounts.google.com", "www.googleapis.com"})

#: Ends of the names of relays, by who runs them.
_RELAYS = {
    "microsoft": ("office365.com", "outlook.com", "office365.us", "outlook.cn", "live.com", "hotmail.com"),
    "google": ("gmail.com", "googlemail.com", "google.com"),
}

_FLOWS = {
    "authorization_code": "authorization-code",
    "client_credentials": "client-credentials",
    "device": "device-code",
    "service_account": "service-account",
    "password": "authorization-code",  # with a note
}

#: What a scope for reading mail has in its name, and what one for sending has.
_READING = re.compile(r"(?:IMAP|POP)\.")
_SENDING = re.compile(r"SMTP\.|/\.default\Z|\Ahttps://mail\.google\.com/\Z")

_PORT = re.compile(r"[0-9]{1,5}\Z")
_SHORTEST_PASSWORD = 8
_EXAMPLE = "*** your"


@dataclass(frozen=True, slots=True)
class Note:
    """What is not taken over as it stands there, and what that means."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that mail programs know: an entry of `[[smtp.listeners]]`."""

    section: str
    address: str
    port: int
    tls: str
    certificate: str = ""
    key: str = ""

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.address in ("127.0.0.1", "::1")


@dataclass(slots=True)
class Takeover:
    """What is made: fields of accounts and applications; the listeners that a person has to set, what is left out or
    otherwise, and the accounts for which somebody has to consent."""

    accounts: list[dict[str, object]] = field(default_factory=list, repr=False)
    applications: list[dict[str, object]] = field(default_factory=list, repr=False)
    listeners: list[Listener] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    to_authorize: list[str] = field(default_factory=list)

    def note(self, where: str, what: str) -> None:
        """Say something once."""
        if Note(where, what) not in self.notes:
            self.notes.append(Note(where, what))


def wanted(file: ProxyFile, mailboxes: Sequence[str]) -> list[Mailbox]:
    """The mailboxes that accounts are made of: those named, else all that have a section.

    Raises:
        InvalidInput: no section stands for one that is named.
    """
    return [file.mailbox(name) for name in dict.fromkeys(mailboxes or file.names())]


def take_over(
    file: ProxyFile, mailboxes: Sequence[Mailbox], passwords: Mapping[str, str], read_file: ReadFile
) -> Takeover:
    """What comes in the place of the proxy. `passwords` are what mail programs log in to it with, by user name.

    Raises:
        InvalidInput: a fault for each mailbox that can't be made, with its section; or there is none at all.
    """
    made = Takeover()
    faults = [Fault(name, "is no mailbox of the file", "leave it out") for name in _strangers(mailboxes, passwords)]
    servers = list(_servers(file, made))
    for mailbox in mailboxes:
        try:
            _Making(file, mailbox, passwords.get(mailbox.name, ""), read_file, made).make(servers)
        except InvalidInput as error:
            faults += error.faults
    if faults:
        raise InvalidInput(faults)
    _tell_of_the_rest(file, mailboxes, made)
    if not made.accounts:
        why = "; ".join(f"{note.where}: {note.what}" for note in made.notes)
        mend = f"name mailboxes that it serves with --mailbox ({why})" if why else "name mailboxes with --mailbox"
        raise InvalidInput(Fault("FILE", "has no mailbox that sends", mend))
    return made


def _strangers(mailboxes: Sequence[Mailbox], passwords: Mapping[str, str]) -> list[str]:
    known = {mailbox.name for mailbox in mailboxes}
    return [name for name in passwords if name not in known]


# --- Servers ---

_SERVER_OPTIONS = frozenset(
    {"server_address", "server_port", "server_starttls", "starttls", "local_address", "local_starttls",
     "local_certificate_path", "local_key_path"}
)  # fmt: skip


def _servers(file: ProxyFile, made: Takeover) -> Iterator[Server]:
    """Those that mail is sent to; each becomes a listener."""
    for server in file.servers():
        where = f"[{server.section}]"
        if server.protocol != "SMTP":
            made.note(where, f"{server.protocol} is for reading mail, which Postroom does not: keep the proxy for it")
            continue
        port = server.options.get("server_port", "")
        if "server_address" not in server.options or not _PORT.match(port):
            made.note(where, "has no server_address or server_port: left out")
            continue
        if not 0 < server.port < 65536:
            made.note(where, f"{server.port} is no port: left out")
            continue
        for name in sorted(server.options.keys() - _SERVER_OPTIONS):
            made.note(f"{where} {name}", "has no counterpart here: left out")
        made.listeners.append(_listener(server))
        yield server


def _listener(server: Server) -> Listener:
    address = server.options.get("local_address", "::")
    # The proxy takes IPv4 on :: too, which is where its clients are.
    address = {"localhost": "127.0.0.1", "::": "0.0.0.0"}.get(address, address)
    certificate, key = (server.options.get(f"local_{name}_path", "") for name in ("certificate", "key"))
    if not (certificate and key):
        return Listener(server.section, address, server.port, "none")
    tls = "starttls" if is_on(server.options.get("local_starttls", "")) else "implicit"
    return Listener(server.section, address, server.port, tls, certificate, key)


def _runs(host: str) -> str:
    """Who runs a relay or a token endpoint, as far as its name tells: "microsoft", "google", or its domain."""
    host = host.lower().rstrip(".")
    if host in _MICROSOFT:
        return "microsoft"
    if host in _GOOGLE:
        return "google"
    for who, ends in _RELAYS.items():
        if any(host == end or host.endswith(f".{end}") for end in ends):
            return who
    return ".".join(host.split(".")[-2:])


# --- One mailbox ---

_MAILBOX_OPTIONS = frozenset(
    {"permission_url", "token_url", "oauth2_scope", "oauth2_flow", "client_id", "client_secret",
     "client_secret_encrypted", "jwt_certificate_path", "jwt_key_path", "token_salt", "token_iterations",
     "refresh_token"}
)  # fmt: skip

#: Options that change nothing here, and why.
_NEEDLESS = {
    "access_token": "is not taken: it is good for an hour at most, and fetched anew",
    "access_token_expiry": "belongs to the access token",
    "last_activity": "is the proxy's own memory",
    "oauth2_resource": "is not sent: the scope names the resource",
    "use_pkce": "is so with every consent here",
    "redirect_listen_address": "is not needed: `accounts authorize` waits on a port of its own, or takes the address of"
    " the last page",
}


@dataclass(frozen=True, slots=True)
class _Making:
    """Makes the accounts and the application of one mailbox."""

    file: ProxyFile
    mailbox: Mailbox
    password: str = field(repr=False)
    read_file: ReadFile
    made: Takeover

    def make(self, servers: Sequence[Server]) -> None:
        options, where = self.mailbox.options, f"[{self.mailbox.name}]"
        if _EXAMPLE in options.get("client_id", "") + options.get("client_secret", ""):
            self.made.note(where, "is an example, with no client_id of its own: left out")
            return
        relays = self._relays(servers)
        if not relays:
            self.made.note(where, "no SMTP section of the file is its provider's: no account is made of it")
            return
        opened = self._opened()
        common = self._common(opened)
        self._tell_of_options(common)
        names = []
        for number, server in enumerate(relays):
            name = self._free_name(server if number else None)
            names.append(name)
            self.made.accounts.append({"name": name, **_relay(server, self.mailbox.name), **common})
            if common["oauth_flow"] in ("authorization-code", "device-code") and not common.get("oauth_refresh_token"):
                self.made.to_authorize.append(name)
        self._add_application(names)

    def _relays(self, servers: Sequence[Server]) -> list[Server]:
        """The servers of the mailbox's provider, each once; those of nobody known, where there are none."""
        ours = _runs(_host(self.mailbox.options.get("token_url", "")))
        runs = {server.section: _runs(server.options["server_address"]) for server in servers}
        found = [server for server in servers if runs[server.section] == ours]
        found = found or [server for server in servers if runs[server.section] not in _RELAYS]
        by_place = {
            (server.options["server_address"].lower(), server.options["server_port"]): server for server in found
        }
        return list(by_place.values())

    def _opened(self) -> Unsealed:
        if self.password and self.mailbox.is_sealed:
            return self.mailbox.opens(self.password)
        return Unsealed({})

    def _common(self, opened: Unsealed) -> dict[str, object]:
        """The fields that hold for every relay of the mailbox."""
        options, flow = self.mailbox.options, self._flow()
        fields: dict[str, object] = {
            "description": "taken over from email-oauth2-proxy", "authentication": "oauth2",
            "username": self.mailbox.name, "sender_patterns": self.mailbox.name, "oauth_flow": flow,
        }  # fmt: skip
        fields |= self._provider(flow)
        if flow == "service-account":
            return fields | {"oauth_service_account": self._service_account()}
        fields["oauth_client_id"] = options.get("client_id", "")
        fields |= self._credential(flow, opened)
        scopes, may_send = self._scopes(str(fields["oauth_provider"]), flow)
        if scopes:
            fields["oauth_scopes"] = scopes
        if flow != "client-credentials" and may_send and opened.get("refresh_token"):
            fields["oauth_refresh_token"] = opened.get("refresh_token")
        return fields

    def _flow(self) -> str:
        """As the proxy has it: where there is a `permission_url`, a person consents, by a device code or not."""
        given = self.mailbox.options.get("oauth2_flow", "")
        if "permission_url" in self.mailbox.options and given != "device":
            if given not in ("", "authorization_code"):
                what = f"{given} does not count beside a permission_url, as with the proxy: a person consents"
                self.made.note(f"[{self.mailbox.name}] oauth2_flow", what)
            return "authorization-code"
        if given not in _FLOWS:
            fault = f"{given!r} is not known" if given else "there is none, and no permission_url"
            raise self._fault("oauth2_flow", fault, f"the proxy knows {', '.join(_FLOWS)}")
        return _FLOWS[given]

    def _provider(self, flow: str) -> dict[str, object]:
        options = self.mailbox.options
        url = options.get("token_url", "")
        host = _host(url)
        if host in _GOOGLE:
            return {"oauth_provider": "google"}
        if host in _MICROSOFT:
            return {"oauth_provider": "microsoft"} | self._tenant(urlsplit(url).path, _MICROSOFT[host])
        if not url:
            raise self._fault("token_url", "there is none", "the proxy needs it, too")
        fields: dict[str, object] = {"oauth_provider": "custom", "oauth_token_url": url}
        where = {"authorization-code": "oauth_authorize_url", "device-code": "oauth_device_url"}.get(flow)
        if where and "permission_url" not in options:
            raise self._fault(
                "permission_url", "there is none", "write where a person consents, or leave the mailbox out"
            )
        if where:
            fields[where] = options["permission_url"]
        return fields

    def _tenant(self, path: str, cloud: str) -> dict[str, object]:
        where = f"[{self.mailbox.name}] token_url"
        tenant = path.strip("/").partition("/")[0]
        if "/oauth2/v2.0/" not in path:
            self.made.note(
                where, "is of version 1, and version 2.0 is asked here: the rights may have to be granted anew"
            )
        scope = self.mailbox.options.get("oauth2_scope", "")
        if cloud == "us-government" and "-dod." in scope:
            cloud = "us-dod"
        found: dict[str, object] = {} if tenant in ("", "common") else {"oauth_tenant": tenant}
        return found | ({} if cloud == "global" else {"oauth_cloud": cloud})

    def _credential(self, flow: str, opened: Unsealed) -> dict[str, object]:
        """Client secret, or certificate; as the proxy, a secret goes before."""
        options, where = self.mailbox.options, f"[{self.mailbox.name}]"
        secret = options.get("client_secret") or opened.get("client_secret_encrypted")
        if not secret and options.get("client_secret_encrypted"):
            mend = "give the password of this mailbox (--password-file), or write client_secret into the file"
            raise self._fault("client_secret_encrypted", "is sealed under the password of the mailbox", mend)
        paths = [options.get(name, "") for name in ("jwt_certificate_path", "jwt_key_path")]
        if secret and any(paths):
            self.made.note(
                f"{where} jwt_certificate_path", "is not taken: the secret goes before it, as with the proxy"
            )
        if secret:
            return {"oauth_client_secret": secret}
        if all(paths):
            certificate, key = (self.read_file(path) for path in paths)
            return {"oauth_certificate": certificate, "oauth_certificate_key": key}
        if flow == "client-credentials":
            return {"oauth_client_secret": self._login_as_secret()}
        return {}

    def _login_as_secret(self) -> str:
        name = "use_login_password_as_client_credentials_secret"
        if not self.file.is_on(name):
            raise self._fault(
                "client_secret", "there is none", "write it, or a certificate with its key, into the file"
            )
        if not self.password:
            mend = "give it in --password-file"
            raise self._fault("client_secret", f"is the login's password ({name}), which the file does not hold", mend)
        self.made.note(
            f"[{self.mailbox.name}]",
            "its mail programs know the client secret as their password: once they log in here, give them another"
            f" (postroom applications edit {self.mailbox.name} --new-password)",
        )
        return self.password

    def _service_account(self) -> str:
        """The key file of Google: `client_id` says whether the secret is it, or names it."""
        kind, secret = (self.mailbox.options.get(name, "") for name in ("client_id", "client_secret"))
        if kind == "file":
            return self.read_file(secret)
        if kind == "key":
            return secret
        raise self._fault("client_id", f"{kind!r} is not known with a service account", "write file or key")

    def _scopes(self, provider: str, flow: str) -> tuple[list[str], bool]:
        """The scopes for sending, empty where they are the provider's own, and whether the consent covers sending."""
        where = f"[{self.mailbox.name}] oauth2_scope"
        given = self.mailbox.options.get("oauth2_scope", "").split()
        if provider == "google" or (flow == "client-credentials" and provider == "microsoft"):
            return [], any(map(_SENDING.search, given))
        kept = [scope for scope in given if not _READING.search(scope)]
        if len(kept) < len(given):
            self.made.note(where, "scopes for reading mail are not asked for")
        if provider == "custom":
            return kept, True
        if not any(map(_SENDING.search, kept)):
            self.made.note(where, "has none for sending: Microsoft's is asked for, and somebody has to consent to it")
            return [], False
        return kept, True

    def _tell_of_options(self, fields: Mapping[str, object]) -> None:
        options, name = self.mailbox.options, self.mailbox.name
        for option in sorted(options.keys() - _MAILBOX_OPTIONS - {"redirect_uri"}):
            self.made.note(f"[{name}] {option}", _NEEDLESS.get(option, "has no counterpart here: left out"))
        if options.get("oauth2_flow") == "password" and "permission_url" not in options:
            what = "the mailbox's own password is given to nobody here: consent in a browser instead"
            self.made.note(f"[{name}] oauth2_flow", f"{what}, or let the application have rights (client_credentials)")
        consents = fields["oauth_flow"] == "authorization-code"
        if consents and options.get("redirect_uri", "http://localhost").rstrip("/") != "http://localhost":
            ours = "http://localhost" if fields["oauth_provider"] == "microsoft" else "http://127.0.0.1/"
            self.made.note(f"[{name}] redirect_uri", f"a consent comes back to {ours} and a port: register that, too")
        if options.get("refresh_token") and not self.password and consents:
            what = "is sealed under the password of the mailbox, which was not given: somebody has to consent again"
            self.made.note(f"[{name}] refresh_token", what)

    def _free_name(self, server: Server | None) -> str:
        """A name for an account of the mailbox that no other has."""
        taken = {str(one["name"]).lower() for one in self.made.accounts}
        # With a hyphen in front the command would take it for an option.
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", self.mailbox.name)[:56].lstrip("-.") or "mailbox"
        name = f"{base}-{server.options['server_port']}" if server else base
        number = 2
        while name.lower() in taken:
            name, number = f"{base}-{number}", number + 1
        return name

    def _add_application(self, accounts: Sequence[str]) -> None:
        name = self.mailbox.name
        fields: dict[str, object] = {
            "name": name, "description": "taken over from email-oauth2-proxy", "address": name, "senders": [name],
            "accounts": list(accounts),
        }  # fmt: skip
        if len(self.password) >= _SHORTEST_PASSWORD:
            fields["password"] = self.password
        elif self.password:
            what = f"its password has less than {_SHORTEST_PASSWORD} characters: a new one is generated"
            self.made.note(f"[{name}]", f"{what} for its mail program")
        self.made.applications.append(fields)

    def _fault(self, option: str, fault: str, mend: str) -> InvalidInput:
        return InvalidInput(Fault(f"[{self.mailbox.name}] {option}", fault, mend))


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _relay(server: Server, mailbox: str) -> dict[str, object]:
    """Host, port and encryption, with the preset that knows the host's limits."""
    host, port = server.options["server_address"], int(server.options["server_port"])
    starttls = is_on(server.options.get("server_starttls", server.options.get("starttls", "")))
    known = [one for one in presets() if one.fields.get("host") == host.lower()]
    own = [one for one in known if mailbox.rpartition("@")[2].lower() in one.domains]
    others = [one for one in known if not one.domains]
    fields: dict[str, object] = {"host": host, "port": port, "security": "starttls" if starttls else "tls"}
    found = own or others or known
    return fields | ({"preset": found[0].name} if found else {})


# --- What is left ---

_GLOBALS = {
    "delete_account_token_on_password_error": "a wrong password never forgets a consent here, whatever it says",
    "encrypt_client_secret_on_first_use": "secrets are always sealed here, whatever it says",
}


def _tell_of_the_rest(file: ProxyFile, mailboxes: Sequence[Mailbox], made: Takeover) -> None:
    made_of = {mailbox.name for mailbox in mailboxes}
    for name in file.names():
        if name not in made_of:
            made.note(f"[{name}]", "is not among those that --mailbox names: left out")
    used = {section for mailbox in mailboxes for section in mailbox.sections}
    for section in file.catch_alls():
        what = "stands for any user name of its kind; here each mailbox is an account: name them with --mailbox ADDRESS"
        made.note(f"[{section}]", f"its options went into the mailboxes named; {what}" if section in used else what)
    for name in sorted(file.options(GLOBAL)):
        if name in ("allow_catch_all_accounts", "use_login_password_as_client_credentials_secret"):
            continue
        made.note(f"[{GLOBAL}] {name}", _GLOBALS.get(name, "has no counterpart here: left out"))
    for section in file.others():
        made.note(f"[{section}]", "is neither a server nor a mailbox: left out")
