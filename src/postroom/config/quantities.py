"""Durations, sizes, schedules and addresses as types of settings: read from text, refused as bare numbers."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Annotated, Any, LiteralString
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from ..errors import InvalidInput
from ..mime.typed import typed_address
from ..model.quantity import QuantityFault, format_duration, format_size, parse_duration, parse_size
from ..policy.patterns import parse_patterns
from ..policy.retry import Schedule


def fault(text: str, mend: str, kind: LiteralString = "value") -> PydanticCustomError:
    """The error of a validator, with its mend."""
    return PydanticCustomError(kind, "{fault}", {"fault": text, "mend": mend})


def _mended(parse: Callable[[object], Any], kind: LiteralString) -> Callable[[object], Any]:
    def validate(value: object) -> Any:
        try:
            return parse(value)
        except QuantityFault as error:
            raise fault(error.fault, error.mend, kind) from None

    return validate


def _parse_schedule(value: object) -> str:
    try:
        Schedule.parse(str(value))
    except InvalidInput as error:
        raise QuantityFault(error.faults[0].fault, error.faults[0].mend) from None
    return str(value)


def _web_base(text: str) -> str:
    """The beginning of links, without the `/` at its end."""
    mend = "write it like https://mail.example.org"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise fault(f"{text!r} is not a URL", mend) from None
    if not text:
        return ""
    if not host or parts.scheme not in ("http", "https") or not text.isascii() or not text.isprintable() or " " in text:
        raise fault(f"{text!r} is not a URL", mend)
    if parts.username is not None or parts.query or parts.fragment or text.endswith(("?", "#")):
        raise fault("more stands in it than host, port and path", mend)
    if parts.scheme == "http" and host not in ("127.0.0.1", "::1", "localhost"):
        raise fault(f"{text!r} is not encrypted", mend)
    return text.rstrip("/")


def duration(text: str) -> timedelta:
    """A default written like the settings themselves."""
    return parse_duration(text)


def size(text: str) -> int:
    """A default written like the settings themselves."""
    return parse_size(text)


def _address(text: str) -> str:
    try:
        return typed_address(text) if text else ""
    except ValueError as error:
        raise fault(str(error), "write it like postmaster@example.org") from None


def in_ascii(address: str) -> str:
    """An address that every relay takes."""
    if not address.isascii():
        raise fault(f"{address!r} is not ASCII, and not every relay takes it", "name an address in ASCII")
    return address


def _separated(value: object) -> object:
    """A list as people write it in one text, with commas or in JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _patterns(values: tuple[str, ...]) -> tuple[str, ...]:
    """Patterns of recipients; a domain stands for its addresses. One that takes in everybody is refused."""
    found: dict[str, None] = {}
    for value in values:
        try:
            found |= dict.fromkeys(parse_patterns([value if "@" in value else f"*@{value}"], ""))
        except InvalidInput:
            mend = "write user@example.org, example.org or *.example.org"
            raise fault(f"{value!r} is no address and no domain", mend) from None
    return tuple(found)


WebBase = Annotated[str, Field(max_length=1000), AfterValidator(_web_base)]
MailAddress = Annotated[str, AfterValidator(_address)]
Duration = Annotated[
    timedelta, BeforeValidator(_mended(parse_duration, "duration")), PlainSerializer(format_duration, return_type=str)
]
Size = Annotated[int, BeforeValidator(_mended(parse_size, "size")), PlainSerializer(format_size, return_type=str)]
_SCHEDULE = BeforeValidator(_mended(_parse_schedule, "schedule"))
RetrySchedule = Annotated[str, _SCHEDULE]
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_separated)]
#: Addresses and domains, kept as patterns.
Recipients = Annotated[Texts, AfterValidator(_patterns)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]


def address_and_port(text: str, port: int = 53) -> tuple[str, int]:
    """The IP address and the port in `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1` or `[2001:db8::1]:5353`.

    Raises:
        ValueError: it is none of these.
    """
    host, colon, number = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, number = text, str(port)
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise ValueError(f"{number!r} is not a port")
    return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))), int(number)


def is_schedule(metadata: Iterable[object]) -> bool:
    """Whether a field with this metadata is a retry schedule."""
    return _SCHEDULE in metadata
