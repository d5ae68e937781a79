"""SPF asked of the DNS (RFC 7208): what a record comes to for an address, and how much of the DNS it takes."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ..policy.mail_exchange import MailExchanger
from ..policy.spf import MOST_LOOKUPS, SpfRecord, Term, expanded, parse_spf, spf_records
from .dns import DnsFailed, NoSuchName

T = TypeVar("T")

#: Records that are followed in all, whatever they include.
_MOST_RECORDS = 40

#: Hosts of one `mx` that are looked at (RFC 7208 section 4.6.4).
_MOST_EXCHANGERS = 10


class Names(Protocol):
    """The DNS: see `net.dns.Dns`."""

    async def texts(self, name: str) -> tuple[bytes, ...]:
        """See there."""

    async def addresses(self, host: str, *, ipv4: bool = True, ipv6: bool = True) -> tuple[str, ...]:
        """See there."""

    async def mail_exchangers(self, domain: str) -> tuple[MailExchanger, ...]:
        """See there."""


@dataclass(slots=True)
class Survey:
    """What a domain publishes: its records (one, if it is well), what they include, and what is wrong."""

    records: list[str] = field(default_factory=list)
    record: SpfRecord | None = None
    lookups: int = 0
    included: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    unknown: str = ""  # the DNS did not say


class PermError(Exception):
    """The check ends for good: receivers treat the domain as broken (section 2.6.7)."""


async def survey(names: Names, domain: str) -> Survey:
    """What `domain` publishes, with all that its record includes."""
    found = Survey()
    try:
        found.records = spf_records(await names.texts(domain))
    except NoSuchName:
        return found
    except DnsFailed as error:
        found.unknown = str(error)
        return found
    if len(found.records) == 1:
        found.record = parse_spf(found.records[0])
        await _follow(names, found.record, domain, found, {domain})
    return found


async def _follow(names: Names, record: SpfRecord, domain: str, found: Survey, seen: set[str]) -> None:
    found.faults += [f"{fault} (in the record of {domain})" for fault in record.faults]
    found.lookups += sum(term.asks for term in record.terms) + bool(record.redirect)
    below = [term.value for term in record.terms if term.name == "include"]
    for name in filter(None, [*below, record.redirect]):
        if "%" in name or len(seen) >= _MOST_RECORDS:
            continue
        lower = name.lower().rstrip(".")
        found.included.append(lower)
        if lower in seen:
            continue
        seen.add(lower)
        try:
            records = spf_records(await names.texts(lower))
        except NoSuchName:
            records = []
        except DnsFailed as error:
            found.unknown = str(error)
            continue
        if len(records) != 1:
            found.faults.append(
                f"{lower}, which it includes, has {len(records) or 'no'} SPF record{'s'[: len(records)]}"
            )
            continue
        await _follow(names, parse_spf(records[0]), lower, found, seen)


class Check:
    """`check_host` of RFC 7208 section 4 for one address and sender."""

    def __init__(self, names: Names, *, address: str, sender: str, helo: str) -> None:
        self._names = names
        self._address = ipaddress.ip_address(address)
        self._sender = sender
        self._helo = helo
        self._lookups = 0
        self.matched = ""

    async def run(self, domain: str) -> str:
        """pass, fail, softfail, neutral, none, permerror or temperror; `matched` is the term that decided."""
        try:
            return await self._check(domain)
        except PermError:
            return "permerror"
        except DnsFailed:
            return "temperror"

    async def _check(self, domain: str) -> str:
        records = spf_records(await _or_nothing(self._names.texts(domain)))
        if not records:
            return "none"
        if len(records) > 1:
            raise PermError
        record = parse_spf(records[0])
        if record.faults:
            raise PermError
        for term in record.terms:
            if await self._matches(term, domain):
                self.matched = term.text
                return term.result
        if not record.redirect:
            return "neutral"
        self._count()
        result = await self._check(self._expand(record.redirect, domain))
        if result == "none":
            raise PermError
        return result

    async def _matches(self, term: Term, domain: str) -> bool:
        if term.name == "all":
            return True
        if term.name in ("ip4", "ip6"):
            return self._address in ipaddress.ip_network(term.value)
        self._count()
        target = self._expand(term.value, domain) if term.value else domain
        if term.name == "include":
            result = await self._check(target)
            if result == "none":
                raise PermError
            return result == "pass"
        if term.name == "exists":
            return bool(await _or_nothing(self._names.addresses(target, ipv6=False)))
        if term.name == "a":
            return self._is_among(await self._addresses(target), term)
        if term.name == "mx":
            exchangers = [one.host for one in await _or_nothing(self._names.mail_exchangers(target)) if one.host]
            answers = await asyncio.gather(*map(self._addresses, exchangers[:_MOST_EXCHANGERS]))
            return any(self._is_among(found, term) for found in answers)
        return False  # ptr: it should not be published (section 5.5), and what it says is hardly trusted

    async def _addresses(self, host: str) -> Sequence[str]:
        is_v4 = self._address.version == 4
        return await _or_nothing(self._names.addresses(host, ipv4=is_v4, ipv6=not is_v4))

    def _is_among(self, found: Sequence[str], term: Term) -> bool:
        bits = term.v4_bits if self._address.version == 4 else term.v6_bits
        return any(self._address in ipaddress.ip_network(f"{one}/{bits}", strict=False) for one in found)

    def _count(self) -> None:
        self._lookups += 1
        if self._lookups > MOST_LOOKUPS:
            raise PermError

    def _expand(self, text: str, domain: str) -> str:
        address = str(self._address)
        return expanded(text, domain=domain, sender=self._sender, address=address, helo=self._helo)


async def _or_nothing(asked: Awaitable[tuple[T, ...]]) -> tuple[T, ...]:
    try:
        return await asked
    except NoSuchName:
        return ()
