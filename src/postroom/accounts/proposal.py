"""Which relay an address most likely sends by: known domains, then its MX, then what the domain itself says in the DNS.

Providers of submission say so by SRV records (RFC 6186 section 3.1; RFC 8314 section 5.1 for implicit TLS). The DNS can
be lied to: a relay in another domain than the mailbox's is proposed, but a person has to say yes (RFC 6186 section 6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import Busy, Fault, InvalidInput
from ..model.fields import FieldFault
from ..net.dns import DnsFailed, NoSuchName, Service
from ..policy.mail_exchange import MailExchanger
from . import presets, values
from .presets import Preset

#: Services that take mail from users, in the order in which they are wanted, and the encryption that each means.
_SERVICES = (("_submissions._tcp", "tls"), ("_submission._tcp", "starttls"))


class Names(Protocol):
    """The DNS: see `net.dns.Dns`."""

    async def mail_exchangers(self, domain: str) -> tuple[MailExchanger, ...]:
        """The MX records of `domain`."""

    async def services(self, name: str) -> tuple[Service, ...]:
        """The SRV records of `name`."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Fields for an account, from where they are known, and what to heed."""

    title: str
    because: str
    fields: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposals:
    """What was found, the likeliest first. `sure`: the first one may be taken without asking."""

    address: str
    proposals: tuple[Proposal, ...]
    sure: bool


async def propose(address: str, names: Names) -> Proposals:
    """What is proposed for a mailbox; nothing, where nobody knows.

    Raises:
        InvalidInput: it is no e-mail address.
        Busy: nothing is known by heart, and the DNS does not answer now.
    """
    mailbox = _address(address)
    domain = mailbox.rpartition("@")[2].lower()
    known = [preset for preset in presets.presets() if preset.takes(domain)]
    if known:
        return _made(mailbox, [_of_preset(one, mailbox, f"{domain} is a domain of it", [domain]) for one in known])
    exchangers, offered = await asyncio.gather(
        names.mail_exchangers(domain), _offered(domain, names), return_exceptions=True
    )
    for answer in (exchangers, offered):
        if isinstance(answer, BaseException) and not isinstance(answer, DnsFailed | NoSuchName):
            raise answer
    found: list[Proposal] = []
    if not isinstance(exchangers, BaseException):
        found += _by_exchangers(mailbox, exchangers)
    if not isinstance(offered, BaseException):
        found += [_of_service(*one, mailbox) for one in offered]
    if not found and isinstance(exchangers, DnsFailed):
        raise Busy(f"no preset has {domain} by heart, and {exchangers}") from exchangers
    return _made(mailbox, found)


def _address(address: str) -> str:
    try:
        mailbox = values.mail_address(address)
    except FieldFault as fault:
        raise InvalidInput(Fault("address", fault.fault, fault.mend)) from None
    if not mailbox:
        raise InvalidInput(Fault("address", "there is none", "write it like office@example.org"))
    return mailbox


def _made(mailbox: str, found: Sequence[Proposal]) -> Proposals:
    return Proposals(mailbox, tuple(found), len(found) == 1 and _is_certain(found[0].fields, mailbox))


def _is_certain(fields: Mapping[str, Any], mailbox: str) -> bool:
    if "preset" not in fields:
        return _is_within(fields["host"], mailbox)
    return "preset_region" in fields or not presets.find(fields["preset"]).regions


def _is_within(host: str, mailbox: str) -> bool:
    domain = mailbox.rpartition("@")[2].lower()
    return host == domain or host.endswith(f".{domain}")


def _by_exchangers(mailbox: str, exchangers: Sequence[MailExchanger]) -> list[Proposal]:
    hosts = tuple(one.host for one in sorted(exchangers, key=lambda one: one.preference))
    takers = [preset for preset in presets.presets() if preset.takes("", hosts)]
    return [_of_preset(one, mailbox, f"its mail goes to {hosts[0]}", hosts) for one in takers]


def _of_preset(preset: Preset, mailbox: str, because: str, names: Sequence[str]) -> Proposal:
    fields: dict[str, Any] = {"preset": preset.name}
    region = preset.region_by(names)
    if region:
        fields["preset_region"] = region
    if preset.user == presets.ITS_ADDRESS and "username" not in preset.fields:
        fields["username"] = mailbox
    notes = preset.notes
    if preset.regions and not region:
        notes = (f"which of its regions it is has to be said: {', '.join(preset.regions)}", *notes)
    return Proposal(preset.title, because, fields, notes)


async def _offered(domain: str, names: Names) -> list[tuple[str, int, str]]:
    """Host, port and encryption of each service that the domain offers, the most wanted first."""
    found: list[tuple[str, int, str]] = []
    for service, security in _SERVICES:
        try:
            records = await names.services(f"{service}.{domain}")
        except NoSuchName:
            continue
        wanted = sorted(records, key=lambda one: (one.priority, -one.weight))
        found += [(one.host, one.port, security) for one in wanted if _can_be_reached(one)]
    return found


def _can_be_reached(offered: Service) -> bool:
    """Whether an account could name it; without a host (".") the service is not offered."""
    try:
        return bool(values.host_or_empty(offered.host)) and offered.port > 0
    except FieldFault:
        return False


def _of_service(host: str, port: int, security: str, mailbox: str) -> Proposal:
    fields = {"host": host, "port": port, "security": security, "username": mailbox}
    notes = () if _is_within(host, mailbox) else ("the relay is in another domain: ask who runs the mail of yours",)
    return Proposal(f"{host}, port {port}", "the domain names it in the DNS (RFC 6186)", fields, notes)
