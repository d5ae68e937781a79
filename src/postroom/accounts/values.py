"""Values of an account's fields that have a syntax of their own: names of hosts, addresses, charsets, TLS versions."""

from __future__ import annotations

import codecs
import datetime
import ipaddress
import re
from urllib.parse import urlsplit

from ..errors import InvalidInput
from ..model import fields as read
from ..model.fields import FieldFault
from ..policy.retry import Schedule
from . import presets

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\Z")
_TENANT = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
_HOST_MEND = "write a DNS name or an IP address, as in smtp.example.org"

TLS_VERSIONS = ("1.0", "1.1", "1.2", "1.3")
_NEVER_SSL = "SSL 2 and 3 are broken and are not spoken here"


def host(value: object) -> str:
    """A DNS name, in small letters and ASCII, or an IP address."""
    text = read.line(253)(value).rstrip(".")
    if "://" in text or "/" in text or "@" in text:
        raise FieldFault(f"{text!r} is not a host name", _HOST_MEND)
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    head, colon, port = text.rpartition(":")
    if colon and port.isdigit():
        raise FieldFault(f"{text!r} holds a port", f"write {head} and give {port} as the port")
    if not text.isascii():
        text = _to_ascii(text)
    labels = text.split(".")
    if not text or not all(map(_LABEL.match, labels)) or labels[-1].isdigit():
        raise FieldFault(f"{text!r} is not a host name", _HOST_MEND)
    return text.lower()


def _to_ascii(text: str) -> str:
    import idna  # here: its tables are large and seldom needed

    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except idna.IDNAError:
        raise FieldFault(f"{text!r} is not a host name", _HOST_MEND) from None


def host_or_empty(value: object) -> str:
    """A host, or nothing."""
    return "" if value == "" else host(value)


def domain_or_empty(value: object) -> str:
    """A domain, or nothing."""
    name = host_or_empty(value)
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name
    raise FieldFault(f"{name!r} is an address, not a domain", "write it as in example.org")


def selector_or_empty(value: object) -> str:
    """The selector of a DKIM key (RFC 6376 section 3.1), or nothing."""
    text = read.line(120)(value).lower()
    if text and not all(_LABEL.match(label) for label in text.split(".")):
        raise FieldFault(f"{text!r} can't be a selector", "write letters, digits and - , as in s1 or mail-2026")
    return text


def helo_name(value: object) -> str:
    """A DNS name or an address literal (RFC 5321 section 4.1.3), or nothing."""
    text = read.line(255)(value)
    if text.startswith("["):
        inner = text.strip("[]").removeprefix("IPv6:")
        try:
            address = ipaddress.ip_address(inner)
        except ValueError:
            raise FieldFault(f"{text!r} is not an address literal", "write [192.0.2.1] or [IPv6:2001:db8::1]") from None
        return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"
    name = host_or_empty(text)
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    literal = f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"
    raise FieldFault(f"{text!r} is an address, not a name", f"write it as {literal}")


def ip_address(value: object) -> str:
    """An IP address, or nothing."""
    text = read.line(64)(value)
    mend = "write one as in 192.0.2.1 or 2001:db8::1"
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        raise FieldFault(f"{text!r} is not an IP address", mend) from None
    if address.is_unspecified or address.is_multicast:
        raise FieldFault(f"{text!r} is not the address of one machine", f"{mend}; empty: any")
    return str(address)


def mail_address(value: object) -> str:
    """An e-mail address, its domain in ASCII, or nothing."""
    from ..mime.typed import typed_address  # here: loads the tables of idna

    text = read.line(320)(value)
    if not text:
        return ""
    try:
        return typed_address(text)
    except ValueError as error:
        raise FieldFault(str(error), "write it like office@example.org") from None


def charset(value: object) -> str:
    """A charset for text in mail, by its MIME name; the number of a Windows code page will do too."""
    text = read.line(40)(value).lower()
    if not text:
        return "utf-8"
    page = {"65001": "utf-8", "20127": "us-ascii", "28591": "iso-8859-1"}.get(text, text)
    name = f"cp{page}" if page.isdigit() else page
    fault, mend = f"{text!r} is not a charset for mail", "write one as in utf-8, iso-8859-1 or windows-1252"
    try:
        found = codecs.lookup(name).name
        # What is ASCII must stay so: line ends and header fields are made of it (RFC 2045 section 2.7).
        fits = "Az09\r\n=<>".encode(found) == b"Az09\r\n=<>"
    except (LookupError, UnicodeError, ValueError):
        raise FieldFault(fault, mend) from None
    if not fits or "escape" in found or found in ("utf-7", "idna", "punycode"):
        raise FieldFault(fault, mend)
    return _mime_name(found)


def _mime_name(codec: str) -> str:
    if codec == "ascii":
        return "us-ascii"
    name = codec.replace("iso8859", "iso-8859").replace("iso2022", "iso-2022").replace("euc_", "euc-").replace("_", "-")
    name = "shift_jis" if name == "shift-jis" else name
    return re.sub(r"\Acp(125[0-8])\Z", r"windows-\1", name)


def tls_versions(value: object) -> tuple[str, ...]:
    """Versions of TLS, one at least, the oldest first."""
    found = set()
    for entry in read.texts(value):
        text = re.sub(r"\Atls\s*v?", "", entry.lower())
        if text.startswith("ssl"):
            raise FieldFault(_NEVER_SSL, f"write some of {', '.join(TLS_VERSIONS)}")
        if text not in TLS_VERSIONS:
            raise FieldFault(f"{entry!r} is not a version of TLS", f"write some of {', '.join(TLS_VERSIONS)}")
        found.add(text)
    if not found:
        raise FieldFault("there is none", f"write some of {', '.join(TLS_VERSIONS)}")
    return tuple(sorted(found))


def fingerprints(value: object) -> tuple[str, ...]:
    """SHA-256 fingerprints of certificates: 64 hexadecimal digits each, as `openssl x509 -fingerprint -sha256` says."""
    found = []
    for entry in read.texts(value):
        digits = re.sub(r"[:\s]", "", entry.lower().removeprefix("sha256").lstrip("=: ").removeprefix("fingerprint="))
        if not re.fullmatch(r"[0-9a-f]{64}", digits):
            what = "SHA-1 fingerprint, which is not safe" if re.fullmatch(r"[0-9a-f]{40}", digits) else "fingerprint"
            negation = "is a" if "SHA-1" in what else "is not a SHA-256"
            mend = "write the 64 digits that `openssl x509 -noout -fingerprint -sha256` prints"
            raise FieldFault(f"{entry!r} {negation} {what}", mend)
        found.append(digits)
    return tuple(dict.fromkeys(found))


def schedule(value: object) -> str:
    """A retry schedule, as in `1m, 5m*2, 1h`, or nothing."""
    text = read.line()(value)
    if text:
        try:
            Schedule.parse(text)
        except InvalidInput as error:
            raise FieldFault(error.faults[0].fault, error.faults[0].mend) from None
    return text


def preset(value: object) -> str:
    """The name of a provider's preset, or nothing."""
    text = read.line(64)(value)
    try:
        return presets.find(text).name if text else ""
    except InvalidInput as error:
        raise FieldFault(error.faults[0].fault, error.faults[0].mend) from None


def region(value: object) -> str:
    """The region of a preset, in small letters, or nothing; the preset knows which there are."""
    return read.line(64)(value).lower()


def tenant(value: object) -> str:
    """A Microsoft tenant: its id, or one of its domains, or nothing."""
    text = read.line(253)(value).lower()
    if text and not _TENANT.match(text):
        try:
            return host(text)
        except FieldFault:
            mend = "write its id (a UUID) or a domain of it, as in contoso.onmicrosoft.com"
            raise FieldFault(f"{text!r} is not a tenant", mend) from None
    return text


def web_address(value: object) -> str:
    """An https URL, or nothing; http only for this machine itself."""
    text = read.line(2000)(value)
    if not text:
        return ""
    mend = "write one as in https://login.example.org/token"
    try:
        parts = urlsplit(text)
        name, _ = parts.hostname or "", parts.port
    except ValueError:
        raise FieldFault(f"{text!r} is not a URL", mend) from None
    if not name or parts.scheme not in ("http", "https") or parts.fragment or " " in text:
        raise FieldFault(f"{text!r} is not a URL", mend)
    if parts.username is not None:
        raise FieldFault("the URL holds a user name", "give credentials in their own fields")
    if parts.scheme == "http" and name not in ("127.0.0.1", "::1", "localhost"):
        raise FieldFault(f"{text!r} is not encrypted", mend)
    return text


def day(value: object) -> str:
    """A day as in 2027-05-31, or nothing."""
    text = read.line(10)(value)
    try:
        return datetime.date.fromisoformat(text).isoformat() if text else ""
    except ValueError:
        raise FieldFault(f"{text!r} is not a day", "write year, month and day, as in 2027-05-31") from None


def scopes(value: object) -> tuple[str, ...]:
    """Scopes (RFC 6749 section 3.3); spaces separate them too."""
    found = tuple(dict.fromkeys(scope for entry in read.texts(value) for scope in entry.split()))
    for scope in found:
        if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]{1,500}", scope):
            raise FieldFault(f"{scope!r} is not a scope", "write it as the provider's pages do")
    return found


def names(value: object) -> tuple[str, ...]:
    """Names of accounts, in order."""
    return tuple(map(read.name, read.texts(value)))


def name_or_empty(value: object) -> str:
    """A name, or nothing."""
    return "" if value == "" else read.name(value)
