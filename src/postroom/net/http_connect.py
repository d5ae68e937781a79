"""CONNECT at an HTTP proxy (RFC 9110 section 9.3.6): requests, heads of replies, and the login; bytes in, bytes out.

python-socks knows CONNECT too, but no NTLM, and takes what comes behind the head of a reply for a part of it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..model.account import Proxy

#: The head of a reply may have so many octets.
MAX_HEAD_BYTES = 16 * 1024

#: Of the head's words, so many characters are kept.
_KEPT_CHARACTERS = 200

END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
END_OF_LINE = re.compile(rb"\n")

_STATUS_LINE = re.compile(r"HTTP/1\.(?P<minor>[0-9]) +(?P<status>[1-9][0-9]{2})(?: (?P<reason>.*))?\Z")
_FIELD = re.compile(r"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):(?P<value>.*)\Z")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)')  # one without an end goes on to the end
_CHALLENGE = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9-]*)(?: +(?P<token>[A-Za-z0-9+/._~-]+=*))?(?: .*)?\Z")


class ConnectRubbish(Exception):
    """What the proxy says is no HTTP, or has no end."""


class LoginRefused(Exception):
    """The proxy wants a login that it does not get; `kind` as in `ConnectFailed`."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def request(host: str, port: int, authorization: str = "") -> bytes:
    """The request for a connection to `host`, which the caller knows to hold nothing but a name or an address."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}", "User-Agent: Postroom", "Proxy-Connection: Keep-Alive"]
    if authorization:
        lines.append(f"Proxy-Authorization: {authorization}")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")


def chunk_bytes(line: bytes) -> int:
    """The length of the chunk that begins with `line` (RFC 9112 section 7.1).

    Raises:
        ConnectRubbish: it does not begin one.
    """
    found = re.match(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;|\r?\n)", line)
    if found is None:
        raise ConnectRubbish("sends a body in chunks that are none")
    return int(found[1], 16)


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a reply; names of `fields` are in small letters."""

    status: int
    reason: str
    minor: int
    fields: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, data: bytes) -> Head:
        """The head in `data`.

        Raises:
            ConnectRubbish: it is none.
        """
        lines = re.split(r"\r?\n", data.decode("latin-1").rstrip("\r\n"))
        first = _STATUS_LINE.match(lines[0])
        if first is None:
            raise ConnectRubbish(f"does not speak HTTP: {shown(lines[0])}")
        fields = [found.group("name", "value") for found in map(_FIELD.match, lines[1:]) if found is not None]
        status, minor = int(first["status"]), int(first["minor"])
        named = tuple((name.lower(), value.strip(" \t")) for name, value in fields)
        return cls(status, shown(first["reason"] or ""), minor, named)

    def all(self, name: str) -> list[str]:
        """The values of the fields called `name`."""
        return [value for other, value in self.fields if other == name]

    @property
    def words(self) -> str:
        """Status and reason, and the error that Squid names."""
        said = f"{self.status} {self.reason}".rstrip()
        squid = " ".join(self.all("x-squid-error"))
        return f"{said} ({shown(squid)})" if squid else said

    @property
    def body_bytes(self) -> int | None:
        """The length of the body behind it; None: it has none that is told."""
        lengths = set(self.all("content-length"))
        if self.all("transfer-encoding") or len(lengths) != 1:
            return None
        length = lengths.pop()
        return int(length) if re.fullmatch(r"[0-9]{1,9}", length) else None

    @property
    def is_chunked(self) -> bool:
        """Whether its body comes in chunks (RFC 9112 section 7.1)."""
        return [value.lower() for value in self.all("transfer-encoding")] == ["chunked"]

    @property
    def stays_open(self) -> bool:
        """Whether the connection goes on behind the body (RFC 9112 section 9.3); old proxies have their own field."""
        told = ",".join(self.all("connection") + self.all("proxy-connection")).lower()
        options = {option.strip() for option in told.split(",")}
        return "close" not in options and (self.minor > 0 or "keep-alive" in options)

    @property
    def challenges(self) -> dict[str, str]:
        """The schemes that the proxy offers, in small letters, each with its token, if it has one (RFC 9110 11.3)."""
        offered: dict[str, str] = {}
        for scheme, token in self._challenges():
            offered[scheme] = offered.get(scheme) or token
        return offered

    def _challenges(self) -> Iterator[tuple[str, str]]:
        for value in self.all("proxy-authenticate"):
            for piece in _QUOTED.sub('""', value).split(","):
                found = _CHALLENGE.match(piece.strip())
                if found is not None:
                    yield found["scheme"].lower(), found["token"] or ""


def shown(text: str) -> str:
    """What a proxy wrote, as it may stand in a line of ours."""
    return re.sub(r"[^ -~]", "?", text.strip())[:_KEPT_CHARACTERS]


class ProxyLogin:
    """The login of one attempt: Basic (RFC 7617), or NTLM (MS-NLMP) in the schemes NTLM and Negotiate (RFC 4559).

    With a domain it is NTLM and nothing else. Without one it is Basic, and NTLM where the proxy does not offer Basic.
    What was refused is not tried in another scheme: it would count twice against a user who is locked out at the third.
    """

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._scheme = ""
        self._context: Any = None
        #: Everything said here that must stand nowhere.
        self.secrets: list[str] = []

    @property
    def is_under_way(self) -> bool:
        """NTLM is about the connection: from its challenge on, the login can't go on over another."""
        return self._context is not None and self._context.complete

    def begin(self) -> str:
        """What the first request says; empty: nothing.

        Raises:
            LoginRefused: the credentials can't be sent.
        """
        if not self._proxy.use_credentials:
            return ""
        return self._start("NTLM" if self._proxy.domain else "Basic")

    def answer(self, offered: Mapping[str, str]) -> str:
        """What the next request says, when the proxy has answered with 407 and offers these schemes.

        Raises:
            LoginRefused: there is nothing more to say.
        """
        names = ", ".join(offered) or "none"
        if not self._proxy.use_credentials:
            raise LoginRefused("auth", f"asks for a login (offered: {names}), and the account has none for it")
        current = self._scheme.lower()
        if self._context is not None and not self._context.complete and offered.get(current):
            return self._step(offered[current])
        if current in offered:
            raise LoginRefused("auth", f"refused the login by {self._scheme}")
        if not self.is_under_way:
            for scheme in ("NTLM", "Negotiate"):
                if scheme.lower() in offered and (self._scheme, scheme) != ("Negotiate", "NTLM"):
                    return self._start(scheme)
        reason = f"offers no login that this account may use ({self._scheme} was tried; offered: {names})"
        raise LoginRefused("no-mechanism", reason)

    def _start(self, scheme: str) -> str:
        self._scheme = scheme
        if scheme == "Basic":
            return self._basic()
        import spnego  # here: few accounts need it

        user = f"{self._proxy.domain}\\{self._proxy.username}" if self._proxy.domain else self._proxy.username
        # No platform's own implementation: it may ask servers of its own (Kerberos), and block.
        self._context = spnego.client(
            user,
            self._proxy.password,
            hostname=self._proxy.host,
            service="HTTP",
            protocol="ntlm",
            options=spnego.NegotiateOptions.use_ntlm,
        )
        return self._step("")

    def _basic(self) -> str:
        if ":" in self._proxy.username:  # RFC 7617 section 2
            raise LoginRefused("credentials", "can't be given a user name with a colon by Basic")
        return self._said(f"{self._proxy.username}:{self._proxy.password}".encode())

    def _step(self, token: str) -> str:
        # A server's token goes through many hands in there, which fail in as many ways.
        try:
            answer = self._context.step(base64.b64decode(token, validate=True) or None)
        except Exception as error:
            raise LoginRefused(
                "protocol", f"sent an NTLM challenge that can't be read: {type(error).__name__}"
            ) from None
        return self._said(answer)

    def _said(self, token: bytes) -> str:
        text = base64.b64encode(token).decode()
        self.secrets.append(text)
        return f"{self._scheme} {text}"
