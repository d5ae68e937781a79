"""Arguments of MAIL and RCPT: paths and ESMTP parameters (RFC 5321 sections 4.1.1.2, 4.1.1.3, 4.1.2 and 4.1.3).

One parse of the octets; what it returns is used for rights, routing and the wire alike. Classes are explicit, comments
and folding do not exist here, and every pattern is linear. A local part may be UTF-8 (RFC 6531 section 3.3); a domain
becomes ASCII here, once.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from functools import lru_cache

from .dsn import parse_envid, parse_notify, parse_orcpt, parse_ret
from .server_events import MailFrom, RcptTo

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
_UTF8_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+"
_UTF8_LOCAL = _UTF8_ATOM + rb"(?:\." + _UTF8_ATOM + rb")*" + rb'|"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*"'
_UTF8_MAILBOX = re.compile(rb"(" + _UTF8_LOCAL + rb")@([A-Za-z0-9.\x80-\xff-]+|" + _LITERAL + rb")")
#: What a character must not turn into for another reader (NFKC): marks with a meaning in addresses and their headers.
_MARKS = '@<>()[]\\,;:" .'
_AT_DOMAIN = rb"@(?:" + _DOMAIN + rb"|" + _LITERAL + rb")"
_SOURCE_ROUTE = re.compile(_AT_DOMAIN + rb"(?:," + _AT_DOMAIN + rb")*:")
#: A quoted local part may hold `>`.
_BRACKETED = re.compile(rb'<(?:[^">]|"(?:[^"\\]|\\.)*")*>')
_IPV4 = re.compile(rb"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\xff]+))?")
_SIZE = re.compile(rb"[0-9]{1,20}")


class ArgumentError(ValueError):
    """An argument that the grammar or the offered extensions do not allow: the reply to give."""

    def __init__(self, text: str, *, reply_code: int = 501, enhanced: str = "5.5.4") -> None:
        super().__init__(text)
        self.reply_code = reply_code
        self.enhanced = enhanced


# Programs that send repeat their senders and often their recipients; faults are not kept.
@lru_cache(maxsize=512)
def parse_mail(argument: bytes) -> MailFrom:
    """What stands behind `MAIL `: `FROM:<path>` and parameters. The value is shared: do not change it.

    Raises:
        ArgumentError: bad syntax, a path over the limits, a parameter that is not offered, or a path that is not ASCII
            without SMTPUTF8.
    """
    path, text = _split_path(argument, b"FROM:", "MAIL FROM:<address>")
    parameters = _parameters(text)
    found = MailFrom(_parse_path(path, "5.1.7") if path else "", has_parameters=bool(parameters))
    for keyword, value in parameters:
        take = _MAIL_PARAMETERS.get(keyword)
        if take is None:
            raise _not_offered(keyword)
        try:
            take(found, value)
        except ValueError as error:
            raise ArgumentError(str(error)) from None
    if not found.smtputf8 and not argument.isascii():
        raise ArgumentError("An address that is not ASCII needs SMTPUTF8", reply_code=553, enhanced="5.6.7")
    return found


@lru_cache(maxsize=512)
def parse_rcpt(argument: bytes) -> RcptTo:
    """What stands behind `RCPT `: `TO:<path>` and parameters. The value is shared: do not change it.

    A source route is dropped (RFC 5321 appendix C).

    Raises:
        ArgumentError: bad syntax, a path over the limits, or a parameter that is not offered.
    """
    path, text = _split_path(argument, b"TO:", "RCPT TO:<address>")
    notify = orcpt = ""
    parameters = _parameters(text)
    for keyword, value in parameters:
        if keyword not in (b"NOTIFY", b"ORCPT"):
            raise _not_offered(keyword)
        try:
            if keyword == b"NOTIFY":
                notify = parse_notify(value)
            else:
                orcpt = parse_orcpt(value)
        except ValueError as error:
            raise ArgumentError(str(error)) from None
    if not path:
        raise ArgumentError("A recipient must not be empty", enhanced="5.1.3")
    address = POSTMASTER if path.lower() == b"postmaster" else _parse_path(path, "5.1.3")
    return RcptTo(address, notify, orcpt, has_parameters=bool(parameters), is_ascii=argument.isascii())


def _take_size(found: MailFrom, value: bytes | None) -> None:
    """RFC 1870 section 3."""
    if value is None or not _SIZE.fullmatch(value):
        raise ValueError("SIZE needs a number of octets")
    found.size_bytes = int(value)


def _take_body(found: MailFrom, value: bytes | None) -> None:
    """RFC 6152 section 2."""
    if value is None or value.upper() not in (b"7BIT", b"8BITMIME"):
        raise ValueError("BODY is 7BIT or 8BITMIME")
    found.eight_bit = value.upper() == b"8BITMIME"


def _take_auth(found: MailFrom, value: bytes | None) -> None:
    # RFC 4954 section 5: must be understood where AUTH is offered; this gateway trusts no such claim.
    if value is None:
        raise ValueError("AUTH needs a value")


def _take_smtputf8(found: MailFrom, value: bytes | None) -> None:
    if value is not None:
        raise ValueError("SMTPUTF8 takes no value")
    found.smtputf8 = True


def _take_ret(found: MailFrom, value: bytes | None) -> None:
    found.ret = parse_ret(value)


def _take_envid(found: MailFrom, value: bytes | None) -> None:
    found.envid = parse_envid(value)


_MAIL_PARAMETERS = {
    b"SIZE": _take_size,
    b"BODY": _take_body,
    b"AUTH": _take_auth,
    b"SMTPUTF8": _take_smtputf8,
    b"RET": _take_ret,
    b"ENVID": _take_envid,
}


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
    return _parse_ascii(path, enhanced) if path.isascii() else _parse_utf8(path, enhanced)


def _parse_utf8(path: bytes, enhanced: str) -> str:
    """An internationalised address: the local part as it stands, the domain as A-labels (UTS 46, IDNA 2008)."""
    found = _UTF8_MAILBOX.fullmatch(path)
    try:
        local, domain = (found[1].decode("utf-8"), found[2].decode("utf-8")) if found else ("", "")
    except UnicodeDecodeError:
        local = ""
    if not local:
        raise ArgumentError("The address is malformed", enhanced=enhanced)
    if len(path) > 4 * MAX_PATH or len(local.encode()) > MAX_LOCAL_PART:
        raise ArgumentError("The local part is too long", enhanced=enhanced)
    if not _is_sound(local):
        raise ArgumentError("The local part has a character that can't be shown or read alike", enhanced=enhanced)
    if not domain.isascii():
        domain = _a_labels(domain, enhanced)
    stand_in = local if local.isascii() else "x"
    _parse_ascii(f"{stand_in}@{domain}".encode("ascii"), enhanced)
    address = f"{local}@{domain}"
    if len(address.encode()) > MAX_PATH - 2:
        raise ArgumentError("The address is too long", enhanced=enhanced)
    return address


def _is_sound(local: str) -> bool:
    """Whether it holds no control, unassigned or private character, and none that stands for a mark of syntax."""
    folded = unicodedata.normalize("NFKC", local)
    return local.isprintable() and all(folded.count(mark) == local.count(mark) for mark in _MARKS)


def _a_labels(domain: str, enhanced: str) -> str:
    import idna  # here: its tables are large and seldom needed

    try:
        return idna.encode(domain, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError:  # idna.IDNAError is one
        raise ArgumentError("The domain can't be written in DNS", enhanced=enhanced) from None


def _parse_ascii(path: bytes, enhanced: str) -> str:
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
