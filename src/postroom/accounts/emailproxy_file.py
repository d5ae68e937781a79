"""The configuration of email-oauth2-proxy (github.com/simonrob/email-oauth2-proxy) as it is read: an INI file without
interpolation, whose tokens are sealed under the password that the mail program logs in with."""

from __future__ import annotations

import base64
import configparser
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from ..errors import Fault, InvalidInput

#: Longest file that is read.
LONGEST = 4 * 1024 * 1024

#: Where a mailbox has no `token_iterations`, its tokens are as old as the times when all had so many.
LEGACY_ITERATIONS = 100_000

#: Those of today, with which the proxy tries, too, whatever the file says.
NEWEST_ITERATIONS = 1_200_000

#: More would keep this machine busy for minutes.
MOST_ITERATIONS = 20_000_000

#: The section of what concerns the proxy as a whole.
GLOBAL = "emailproxy"

#: The one of all mailboxes that have no other.
EVERYBODY = "@"

#: What is sealed, each by itself.
SEALED = ("client_secret_encrypted", "refresh_token", "access_token")

#: What the proxy looks for in a cache store.
_STORED = frozenset(
    {"access_token", "access_token_expiry", "refresh_token", "token_salt", "token_iterations",
     "client_secret_encrypted", "last_activity"}
)  # fmt: skip

_SERVER = re.compile(r"(IMAP|POP|SMTP)-([0-9]{1,5})\Z")
_NUMBER = re.compile(r"[0-9]{1,9}\Z")
_DOCUMENTATION = "documentation"
_MEND = "name the file that the proxy is started with, most often emailproxy.config"


@dataclass(frozen=True, slots=True)
class Server:
    """A section like [SMTP-1587]: a port that the proxy listens on, and the server behind it."""

    section: str
    protocol: str
    port: int
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mailbox:
    """What holds for one user name: its own options, and those of its domain where it has none.

    `sections` are where they come from, its own first.
    """

    name: str
    sections: tuple[str, ...]
    options: Mapping[str, str] = field(repr=False)

    def opens(self, password: str) -> Unsealed:
        """What the options that are sealed hold.

        Raises:
            InvalidInput: they are sealed under another password, or broken.
        """
        return Unsealed({name: self._opened(name, password) for name in SEALED if self.options.get(name)})

    @property
    def is_sealed(self) -> bool:
        """Whether a password would open anything."""
        return any(self.options.get(name) for name in SEALED)

    def _opened(self, name: str, password: str) -> str:
        sealed = self.options[name].encode()
        for iterations in dict.fromkeys((self._iterations(), LEGACY_ITERATIONS, NEWEST_ITERATIONS)):
            try:
                return self._fernet(password, iterations).decrypt(sealed).decode()
            except (InvalidToken, UnicodeDecodeError):
                continue
        fault = f"the password of {self.name} does not open it"
        raise InvalidInput(
            Fault(f"[{self.sections[0]}] {name}", fault, "give the one that its mail program logs in to the proxy with")
        )

    def _iterations(self) -> int:
        text = self.options.get("token_iterations", str(LEGACY_ITERATIONS))
        if not _NUMBER.match(text) or not 0 < int(text) <= MOST_ITERATIONS:
            mend = f"it is a number up to {MOST_ITERATIONS}, which the proxy wrote"
            raise InvalidInput(Fault(f"[{self.sections[0]}] token_iterations", f"is {text!r}", mend))
        return int(text)

    def _fernet(self, password: str, iterations: int) -> Fernet:
        try:
            salt = base64.b64decode(self.options.get("token_salt", ""), validate=True)
        except ValueError:
            salt = b""
        if not salt:
            mend = "without it nobody can open the tokens: leave the password of this mailbox out, and consent anew"
            raise InvalidInput(Fault(f"[{self.sections[0]}] token_salt", "is missing or no base64", mend))
        key = PBKDF2HMAC(algorithm=SHA256(), length=32, salt=salt, iterations=iterations).derive(password.encode())
        return Fernet(base64.urlsafe_b64encode(key))


@dataclass(frozen=True, slots=True, repr=False)
class Unsealed:
    """Opened secrets by the name of their option."""

    values: Mapping[str, str]

    def get(self, name: str) -> str:
        """The secret, or "" where there is none."""
        return self.values.get(name, "")


class ProxyFile:
    """The sections of a configuration, and of the cache store where tokens lie apart from it."""

    def __init__(self, text: str, cache: str = "") -> None:
        self._parser = _parsed(text, "FILE")
        if cache:
            self._take_stored(_parsed(cache, "--cache-store"))

    def _take_stored(self, stored: configparser.ConfigParser) -> None:
        for section in stored.sections():
            if "@" not in section:
                continue
            if not self._parser.has_section(section):
                if not self.is_on("allow_catch_all_accounts"):
                    continue
                self._parser.add_section(section)
            for name, value in self._options_of(stored, section).items():
                if name in _STORED:
                    self._parser.set(section, name, value)

    def options(self, section: str) -> dict[str, str]:
        """The options of a section, but for its documentation; those without a value are left out."""
        return self._options_of(self._parser, section) if self._parser.has_section(section) else {}

    @staticmethod
    def _options_of(parser: configparser.ConfigParser, section: str) -> dict[str, str]:
        return _with_values(dict(parser.items(section)))

    def is_on(self, name: str) -> bool:
        """Whether the global option `name` is on."""
        return is_on(self.options(GLOBAL).get(name, ""))

    def servers(self) -> Iterator[Server]:
        """The servers in the order of the file."""
        for section in self._parser.sections():
            found = _SERVER.match(section)
            if found:
                yield Server(section, found[1], int(found[2]), self.options(section))

    def names(self) -> list[str]:
        """The user names that have a section of their own, in the order of the file."""
        return [section for section in self._parser.sections() if "@" in section[1:]]

    def catch_alls(self) -> list[str]:
        """The sections that stand for all user names of a domain, or for all."""
        return [section for section in self._parser.sections() if section.startswith("@")]

    def others(self) -> list[str]:
        """Sections of which nobody knows what they are for, with options in them."""
        known = {*(server.section for server in self.servers()), *self.names(), *self.catch_alls(), GLOBAL}
        return [section for section in self._parser.sections() if section not in known and self.options(section)]

    def mailbox(self, name: str) -> Mailbox:
        """What holds for the user name; each option by itself comes from the first section that has it.

        Raises:
            InvalidInput: nothing does.
        """
        sections = [name]
        if self.is_on("allow_catch_all_accounts"):
            sections += [f"@{name.rpartition('@')[2]}", EVERYBODY]
        there = [section for section in sections if self._parser.has_section(section)]
        if not there:
            mend = f"the file has {', '.join(self.names()) or 'none'}"
            raise InvalidInput(Fault("--mailbox", f"no section stands for {name}", mend))
        options: dict[str, str] = {}
        for section in reversed(there):
            options |= self._parser.items(section)  # one without a value takes that of a catch-all away
        return Mailbox(name, tuple(there), _with_values(options))


def _with_values(options: Mapping[str, str]) -> dict[str, str]:
    found = {name: value.strip() for name, value in options.items() if name != _DOCUMENTATION}
    return {name: value for name, value in found.items() if value}


def is_on(text: str) -> bool:
    """Whether an option says yes, as the proxy reads it."""
    return configparser.ConfigParser.BOOLEAN_STATES.get(text.lower(), False)


def _parsed(text: str, field: str) -> configparser.ConfigParser:
    if len(text) > LONGEST:
        raise InvalidInput(Fault(field, f"is {len(text)} characters long", f"at most {LONGEST} are read"))
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text.removeprefix("\ufeff"))
    except configparser.Error as error:
        raise InvalidInput(Fault(field, f"is no configuration of email-oauth2-proxy: {_why(error)}", _MEND)) from None
    return parser


def _why(error: configparser.Error) -> str:
    """Without the line itself, which may hold a secret."""
    if isinstance(error, configparser.DuplicateSectionError | configparser.DuplicateOptionError):
        option = f" {error.option}" if isinstance(error, configparser.DuplicateOptionError) else ""
        return f"[{error.section}]{option} stands twice, again in line {error.lineno}"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno} stands in no section"
    if isinstance(error, configparser.ParsingError):
        return f"line {', '.join(str(number) for number, _ in error.errors)} is no option"
    return "it can't be read"
