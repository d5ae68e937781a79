"""What a domain demands of the connections that bring it mail: MTA-STS (RFC 8461)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

#: The longest that a policy may be kept (section 3.2).
LONGEST_AGE_SECONDS = 31_557_600

_VERSION = re.compile(r"v=STSv1[ \t]*(?:;|\Z)")
_FIELD = re.compile(r"[ \t]*([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x3a\x3c\x3e-\x7e]+)[ \t]*\Z")
_ID = re.compile(r"[A-Za-z0-9]{1,32}\Z")
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*(.*?)[ \t]*\Z")
_AGE = re.compile(r"[0-9]{1,10}\Z")
_MX = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?\Z")


class Mode(StrEnum):
    """What follows from a host that does not fit its domain's policy."""

    ENFORCE = "enforce"  # no mail is given to it
    TESTING = "testing"  # nothing
    NONE = "none"  # there is no policy any more


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """A policy; `mx` are host names, or `*.` and a domain for any one label before it."""

    mode: Mode
    max_age: timedelta
    mx: tuple[str, ...] = ()

    @property
    def enforces(self) -> bool:
        """Whether mail goes over verified TLS to hosts of `mx`, or not at all."""
        return self.mode is Mode.ENFORCE

    def names(self, host: str) -> bool:
        """Whether `host`, an MX of the domain, is one that the policy names (section 4.1)."""
        host = host.lower()
        return any(host == one or (one[:2] == "*." and host.partition(".")[2] == one[2:]) for one in self.mx)


def record_id(texts: Sequence[bytes]) -> str:
    """The id in the TXT records at `_mta-sts.` of a domain; empty where it has no policy (section 3.1)."""
    found = [text for text in (raw.decode("ascii", "replace") for raw in texts) if _VERSION.match(text)]
    if len(found) != 1:
        return ""
    given: dict[str, str] = {}
    for part in found[0].partition(";")[2].split(";"):
        if part.strip(" \t"):
            field = _FIELD.match(part)
            if field is None:
                return ""
            given.setdefault(field[1], field[2])
    return given["id"] if _ID.match(given.get("id", "")) else ""


def parse_policy(body: bytes) -> StsPolicy:
    """The policy that a domain serves (section 3.2).

    Raises:
        ValueError: it is none; the text says why.
    """
    fields: dict[str, str] = {}
    hosts: list[str] = []
    for line in body.decode("utf-8").replace("\r\n", "\n").split("\n"):
        found = _LINE.match(line)
        if found is None:
            if line.strip(" \t"):
                raise ValueError(f"{line[:80]!r} is no line of a policy")
        elif found[1] == "mx":
            hosts.append(_host(found[2]))
        else:
            fields.setdefault(found[1], found[2])
    if fields.get("version") != "STSv1":
        raise ValueError("its version is not STSv1")
    if fields.get("mode") not in tuple(Mode):
        raise ValueError("its mode is none of enforce, testing and none")
    if not _AGE.match(fields.get("max_age", "")):
        raise ValueError("it has no max_age")
    mode = Mode(fields["mode"])
    if not hosts and mode is not Mode.NONE:
        raise ValueError("it names no mx")
    return StsPolicy(mode, timedelta(seconds=min(int(fields["max_age"]), LONGEST_AGE_SECONDS)), tuple(hosts))


def _host(text: str) -> str:
    if not _MX.match(text):
        raise ValueError(f"{text[:80]!r} is no name of an mx")
    return text.lower()
