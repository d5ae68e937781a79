"""Which hosts take the mail of a domain, and in which order (RFC 5321 section 5.1, RFC 7505)."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

#: Hosts of one domain that are looked at, whatever it publishes.
MOST_HOSTS = 20


@dataclass(frozen=True, slots=True)
class MailExchanger:
    """An MX record: `host` is a name in lower case without its final dot, empty for the root."""

    preference: int
    host: str


def is_null(records: Sequence[MailExchanger]) -> bool:
    """Whether they say that the domain takes no mail: one record, for the root (RFC 7505 section 3)."""
    return len(records) == 1 and not records[0].host


def ranks(records: Iterable[MailExchanger], random: Callable[[], float]) -> list[list[str]]:
    """The hosts by rank, the ones to try first in front; those of one rank in the order of `random` numbers."""
    best: dict[str, int] = {}
    for record in records:
        if record.host:
            best[record.host] = min(record.preference, best.get(record.host, record.preference))
    drawn = sorted((preference, random(), host) for host, preference in best.items())[:MOST_HOSTS]
    return [[host for _, _, host in group] for _, group in groupby(drawn, key=lambda one: one[0])]


def before_ourselves(records: Sequence[MailExchanger], own_names: Container[str]) -> list[MailExchanger]:
    """Those that are preferred to ourselves; all, where we are not among them.

    Sending to others would bring the message back to us (RFC 5321 section 5.1).
    """
    ours = [record.preference for record in records if record.host in own_names]
    return sorted((one for one in records if not ours or one.preference < min(ours)), key=attrgetter("preference"))
