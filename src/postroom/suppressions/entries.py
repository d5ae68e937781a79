"""Entries of the suppression list as people write them: an address or a domain, a reason, when it expires."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime

from ..errors import Fault, InvalidInput
from ..model.quantity import QuantityFault, parse_duration
from ..model.suppression import REASON_CHARACTERS, Suppression, SuppressionSource
from ..policy.suppressions import folded

#: The reason of an entry for which none is given.
REASONS = {SuppressionSource.BY_HAND: "added by hand", SuppressionSource.IMPORT: "imported"}

_MEND = "write an address, as in ann@example.org, or a domain, as in example.org"
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_MOST_OCTETS = 253


def parse_key(text: str, field: str = "entry") -> str:
    """The key of the entry that `text` names; `@example.org` and `*@example.org` are the domain too.

    Raises:
        InvalidInput: it is neither an address nor a domain.
    """
    name = text.strip()
    try:
        if not name.isprintable():
            raise ValueError(f"{text!r} holds a character that is not seen")
        domain = name.removeprefix("*").removeprefix("@")
        if "@" in domain:
            return _address(name)
        if domain == name and "." not in name:
            raise ValueError(f"{text!r} is neither an address nor a domain" if name else "there is none")
        return _domain(domain)
    except ValueError as error:
        raise InvalidInput(Fault(field, str(error), _MEND)) from None


def _address(text: str) -> str:
    from ..mime.typed import typed_address  # here: loads the tables of idna

    return folded(typed_address(text))


def _domain(text: str) -> str:
    name = text.lower().removesuffix(".")
    if not name.isascii():
        import idna  # here: its tables are large and seldom needed

        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"{text!r} can't be written in DNS: {error}") from None
    if not _DOMAIN.fullmatch(name) or len(name) > _MOST_OCTETS:
        raise ValueError(f"{text!r} is no domain")
    return name


def parse_entry(
    text: str, reason: str, expires: str, source: SuppressionSource, now: datetime, within: str = ""
) -> Suppression:
    """The entry that these words describe; `within` stands in front of the fields in errors. An import may bring what
    has expired.

    Raises:
        InvalidInput: one fault for each field that can't be read.
    """
    faults: list[Fault] = []
    key, until = "", None
    try:
        key = parse_key(text, f"{within}entry")
    except InvalidInput as error:
        faults += error.faults
    reason = reason.strip() or REASONS[source]
    if len(reason) > REASON_CHARACTERS or not reason.isprintable():
        fault = f"is longer than {REASON_CHARACTERS} characters, or holds one that is not seen"
        faults.append(Fault(f"{within}reason", fault, "say it in one short line"))
    try:
        until = _until(expires.strip(), now, f"{within}expires")
        if until is not None and until <= now and source is SuppressionSource.BY_HAND:
            raise InvalidInput(Fault(f"{within}expires", f"{expires} is over already", _MEND_EXPIRES))
    except InvalidInput as error:
        faults += error.faults
    if faults:
        raise InvalidInput(faults)
    return Suppression(key=key, reason=reason, source=source, created=now, expires=until)


_MEND_EXPIRES = "write a duration, as in 90d, or a date to come, as in 2027-01-31; leave it out for no end"


def _until(text: str, now: datetime, field: str) -> datetime | None:
    """When an entry expires: so long after `now`, or on a date (ISO 8601; UTC where it has no zone)."""
    if not text:
        return None
    try:
        with contextlib.suppress(QuantityFault):
            return now + parse_duration(text)
        given = datetime.fromisoformat(text)
        return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(Fault(field, f"{text!r} is no duration and no date", _MEND_EXPIRES)) from None
