"""Sender and recipient patterns (SPEC section 2.6): an address, `*@domain`, `*@*.domain`, `*`; case is ignored."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import Fault, InvalidInput

_DOMAIN = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\Z")
_MEND = "write an address, *@example.org, *@*.example.org or *"


def parse_patterns(text: str | Iterable[str], field: str) -> tuple[str, ...]:
    """Patterns from a list or from text separated by commas, semicolons or lines; in small letters, domains as A-labels
    as addresses have them behind the doors (decision 0009).

    Raises:
        InvalidInput: one of them is no pattern; the fault names it.
    """
    parts = re.split(r"[,;\s]+", text) if isinstance(text, str) else [part.strip() for part in text]
    patterns = tuple(dict.fromkeys(_in_a_labels(part.lower()) for part in parts if part))
    faults = [Fault(field, f"{pattern!r} is not a pattern", _MEND) for pattern in patterns if not _is_pattern(pattern)]
    if faults:
        raise InvalidInput(faults)
    return patterns


def _in_a_labels(pattern: str) -> str:
    """The pattern with its domain as A-labels; unchanged where that can't be, to be refused as it was written."""
    local, at, domain = pattern.rpartition("@")
    if domain.isascii():
        return pattern
    import idna  # here: its tables are large and seldom needed

    prefix = "*." if domain.startswith("*.") else ""
    try:
        return f"{local}{at}{prefix}{idna.encode(domain.removeprefix(prefix), uts46=True).decode('ascii')}"
    except UnicodeError:  # idna.IDNAError is one
        return pattern


def _is_pattern(pattern: str) -> bool:
    if pattern == "*":
        return True
    local, at, domain = pattern.rpartition("@")
    if not at or not local or any(ch.isspace() or ord(ch) < 33 for ch in pattern):
        return False
    if local == "*":
        domain = domain.removeprefix("*.")
    elif "*" in local:
        return False
    if domain.startswith("[") and domain.endswith("]"):
        return True
    return bool(_DOMAIN.match(domain))


def matches(pattern: str, address: str) -> bool:
    """Whether `address` (no angle brackets) falls under `pattern` (in small letters)."""
    if pattern == "*":
        return True
    address = address.lower()
    if not pattern.startswith("*@"):
        return address == pattern
    domain = address.rpartition("@")[2]
    wanted = pattern[2:]
    if wanted.startswith("*."):
        return domain.endswith(wanted[1:])
    return domain == wanted


def matches_any(patterns: Iterable[str], address: str) -> bool:
    """Whether one of `patterns` covers `address`."""
    return any(matches(pattern, address) for pattern in patterns)
