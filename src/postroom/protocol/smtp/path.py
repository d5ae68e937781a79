"""Arguments of MAIL and RCPT: paths and ESMTP parameters (RFC 5321 sections 4.1.1.2, 4.1.1.3, 4.1.2 and 4.1.3).

One parse of the octets; what it returns is used for rights, routing and the wire alike. Classes are explicit ASCII,
comments and folding do not exist here, and every pattern is linear.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

#: RFC 5321 section 4.5.3.1: octets of a local part, and of a path with its brackets (no domain fits that is over 255).
MAX_LOCAL_PART = 64
MAX_PATH = 256

#: The local part that needs no domain, in RCPT only (RFC 5321 section 4.1.1.3).
POSTMASTER = "postmaster"

_LABEL = rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = _LABEL + rb"(?:\." + _LABEL + rb")*"
_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_STRING = _ATOM + rb"(?:\." + _ATOM + rb")*"
_QUOTED_STRING = rb'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_LITERAL = rb"\[[A-Za-z0-9:.]{3,64}\]"

_MAILBOX = re.compile(
    rb"(" + _DOT_STRING + rb"|" + _QUOTED_STRING + rb")@(?:" + _DOMAIN + rb"|(?P<literal>" + _LITERAL + rb"))"
)
_AT_DOMAIN = rb"@(?:" + _DOMAIN + rb"|" + _LITERAL + rb")"
_SOURCE_ROUTE = re.compile(_AT_DOMAIN + rb"(?:," + _AT_DOMAIN + rb")*:")
#: A quoted local part may hold `>`.
_BRACKETED = re.compile(rb'<(?:[^">]|"(?:[^"\\]|\\.)*")*>')
_IPV4 = re.compile(rb"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?")
_SIZE = re.compile(rb"[0-9]{1,20}")


class ArgumentError(ValueError):
    """An argument that the grammar or the offered extensions do not allow: the reply to give."""

    def __init__(self, text: str, *, reply_code: int = 501, enhanced: str = "5.5.4") -> None:
        super().__init__(text)
        self.reply_code = reply_code
        self.enhanced = enhanced


class MailArgument:
    """What MAIL said: `path` ("" for the null reverse-path), `size_bytes` declared (RFC 1870) or None, and whether
    BODY=8BITMIME was given (RFC 6152)."""

    __slots__ = ("eight_bit", "path", "size_bytes")

    def __init__(self, path: str, size_bytes: int | None = None, eight_bit: bool = False) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.eight_bit = eight_bit


# Programs that send repeat their senders and often their recipients; faults are not kept.
@lru_cache(maxsize=512)
def parse_mail(argument: bytes) -> MailArgument:
    """What stands behind `MAIL `: `FROM:<path>` and parameters. The value is shared: do not change it.

    Raises:
        ArgumentError: bad syntax, a path over the limits, or a parameter that is not offered.
    """
    path, parameters = _split_path(argument, b"FROM:", "MAIL FROM:<address>")
    found = MailArgument(_parse_path(path, "5.1.7") if path else "")
    for keyword, value in _parameters(parameters):
        if keyword == b"SIZE":
            if value is None or not _SIZE.fullmatch(value):
                raise ArgumentError("SIZE needs a number of octets")
            found.size_bytes = int(value)
        elif keyword == b"BODY":
            if value is None or value.upper() not in (b"7BIT", b"8BITMIME"):
                raise ArgumentError("BODY is 7BIT or 8BITMIME")
            found.eight_bit = value.upper() == b"8BITMIME"
        elif keyword == b"AUTH":
            # RFC 4954 section 5: must be understood where AUTH is offered; this gateway trusts no such claim.
            if value is None:
                raise ArgumentError("AUTH needs a value")
        else:
            raise _not_offered(keyword)
    return found


@lru_cache(maxsize=512)
def parse_rcpt(argument: bytes) -> str:
    """The address behind `RCPT `: `TO:<path>`; a source route is dropped (RFC 5321 appendix C).

    Raises:
        ArgumentError: bad syntax, a path over the limits, or a parameter that is not offered.
    """
    path, parameters = _split_path(argument, b"TO:", "RCPT TO:<address>")
    for keyword, _ in _parameters(parameters):
        raise _not_offered(keyword)
    if not path:
        raise ArgumentError("A recipient must not be empty", enhanced="5.1.3")
    if path.lower() == b"postmaster":
        return POSTMASTER
    return _parse_path(path, "5.1.3")


def _split_path(argument: bytes, keyword: bytes, usage: str) -> tuple[bytes, bytes]:
    """The octets between the angle brackets, and those behind them."""
    if argument[: len(keyword)].upper() != keyword:
        raise ArgumentError(f"Syntax: {usage}")
    # RFC 5321 section 3.3 forbids the space; printers and old libraries write it, and nothing else can be meant.
    rest = argument[len(keyword) :].lstrip(b" ")
    if not rest.startswith(b"<"):
        raise ArgumentError(f"Syntax: {usage}")
    found = _BRACKETED.match(rest)
    if found is None:
        raise ArgumentError(f"Syntax: {usage}")
    return rest[1 : found.end() - 1], rest[found.end() :]


def _parse_path(path: bytes, enhanced: str) -> str:
    """`path` without its angle brackets and source route, as text; `enhanced` is the status of a fault in it."""
    if path.startswith(b"@"):
        route = _SOURCE_ROUTE.match(path)
        if route is None:
            raise ArgumentError("The source route is malformed", enhanced=enhanced)
        path = path[route.end() :]
    if len(path) > MAX_PATH - 2:
        raise ArgumentError("The address is too long", enhanced=enhanced)
    found = _MAILBOX.fullmatch(path)
    if found is None:
        fault = "is malformed" if b"@" in path else "needs a domain"
        raise ArgumentError(f"The address {fault}", enhanced=enhanced)
    if len(found[1]) > MAX_LOCAL_PART:
        raise ArgumentError("The local part is too long", enhanced=enhanced)
    if found["literal"] is not None and not _is_address_literal(found["literal"][1:-1]):
        raise ArgumentError("The address literal is malformed", enhanced=enhanced)
    return path.decode("ascii")


def _is_address_literal(literal: bytes) -> bool:
    """RFC 5321 section 4.1.3; no tag but IPv6 was ever registered."""
    if literal[:5].upper() == b"IPV6:":
        try:
            ipaddress.IPv6Address(literal[5:].decode("ascii"))
        except ValueError:
            return False
        return True
    return bool(_IPV4.fullmatch(literal)) and all(int(octet) < 256 for octet in literal.split(b"."))


def _parameters(text: bytes) -> list[tuple[bytes, bytes | None]]:
    """Keyword (capitals) and value of each ESMTP parameter (RFC 5321 section 4.1.2)."""
    if not text.strip(b" "):
        return []
    if not text.startswith(b" "):
        raise ArgumentError("Parameters are set off from the address by a space")
    found: dict[bytes, bytes | None] = {}
    for word in text.split(b" "):
        if not word:
            continue
        parameter = _PARAMETER.fullmatch(word)
        if parameter is None:
            raise ArgumentError("A parameter is malformed")
        keyword = parameter[1].upper()
        if keyword in found:
            raise ArgumentError("A parameter is given twice")
        found[keyword] = parameter[2]
    return list(found.items())


def _not_offered(keyword: bytes) -> ArgumentError:
    """RFC 5321 section 4.1.1.11: 555 for a parameter that is not recognised or not implemented."""
    return ArgumentError(f"Parameter {keyword[:64].decode('ascii')} is not offered", reply_code=555)
