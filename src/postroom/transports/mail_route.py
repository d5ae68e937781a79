"""Where the mail of a domain goes: its hosts in order, and what its MTA-STS policy asks of them (RFC 5321 section 5.1).

What is never tried: a host that is this machine, and those behind it, which would bring the mail back.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncGenerator, Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..model.account import AddressFamily
from ..model.outcome import Bounced, Deferred
from ..net.dns import DnsFailed, NoSuchName
from ..net.local_address import is_here
from ..net.stream import Address
from ..policy.mail_exchange import MailExchanger, before_ourselves, is_null, ranks
from ..policy.mta_sts import StsPolicy

#: The port of all MX. At another one nobody's mail arrives by itself, so nothing there can be a loop.
MX_PORT = 25

#: Addresses of one host that are tried.
_MOST_ADDRESSES = 8


class NoRoute(Exception):
    """There is no host to try; `failure` is the outcome of every recipient of the domain."""

    def __init__(self, failure: Bounced | Deferred) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Names(Protocol):
    """The DNS: see `net.dns.Dns`."""

    async def mail_exchangers(self, domain: str) -> tuple[MailExchanger, ...]:
        """See there."""

    async def addresses(self, host: str, *, ipv4: bool = True, ipv6: bool = True) -> tuple[str, ...]:
        """See there."""


class Policies(Protocol):
    """MTA-STS: see `net.mta_sts.StsPolicies`."""

    async def policy(self, domain: str) -> StsPolicy | None:
        """See there."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host to try; `addresses` in the form that `net.stream` connects to."""

    name: str
    addresses: tuple[Address, ...]

    @property
    def tls_name(self) -> str:
        """What TLS asks for: the name, or the address where it is a literal."""
        return str(self.addresses[0][1][0]) if self.name.startswith("[") else self.name

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """A `net.stream.Resolver`: the addresses are known."""
        return self.addresses


@dataclass(frozen=True, slots=True)
class Route:
    """The hosts of a domain by rank; `enforced`: over verified TLS, or not at all."""

    domain: str
    ranks: tuple[tuple[str, ...], ...]
    enforced: bool = False

    def has(self, host: str) -> bool:
        """Whether `host` is one of them."""
        return any(host in rank for rank in self.ranks)


@dataclass(slots=True)
class Misses:
    """Why hosts of a route could not be tried."""

    failed: list[str] = field(default_factory=list)  # the DNS does not say
    ours: str = ""


class MailRoutes:
    """Routes for one account."""

    def __init__(
        self,
        names: Names,
        policies: Policies,
        random: Callable[[], float],
        *,
        own_names: Container[str],
        port: int = MX_PORT,
        family: AddressFamily = AddressFamily.ANY,
        is_here: Callable[[str], bool] = is_here,
    ) -> None:
        self._names = names
        self._policies = policies
        self._random = random
        self._own_names = own_names
        self._port = port
        self._family = family
        self._is_here = is_here

    async def find(self, domain: str) -> Route:
        """The route to `domain`, a name or an address literal (RFC 5321 section 4.1.3).

        Raises:
            NoRoute: the domain takes no mail, leads back here, or cannot be looked up now.
        """
        if domain.startswith("["):
            try:
                ipaddress.ip_address(_literal(domain))
            except ValueError:
                raise NoRoute(Bounced(status="5.1.3", reason=f"{domain} is not the literal of an address")) from None
            return Route(domain, ((domain,),))
        try:
            records = await self._names.mail_exchangers(domain)
        except NoSuchName:
            raise NoRoute(Bounced(status="5.1.2", reason=f"there is no domain {domain}")) from None
        except DnsFailed as error:
            raise NoRoute(_unknown(str(error))) from None
        if is_null(records):
            # RFC 7505 section 4.1
            raise NoRoute(Bounced(status="5.1.10", reason=f"556 {domain} takes no mail (null MX)"))
        published = [record for record in records if record.host] or [MailExchanger(0, domain)]
        usable = before_ourselves(published, self._own_names)
        if not usable:
            raise NoRoute(_loop(domain, published[0].host))
        policy = await self._policies.policy(domain)
        enforced = policy is not None and policy.enforces
        if policy is not None and enforced:
            usable = [record for record in usable if policy.names(record.host)]
            if not usable:
                reason = f"the MTA-STS policy of {domain} names none of its MX hosts"
                advice = "the domain's administrator must mend the policy or the MX; mail waits until then"
                raise NoRoute(Deferred(status="4.7.5", reason=reason, advice=advice))
        found = tuple(tuple(rank) for rank in ranks(usable, self._random))
        return Route(domain, found, enforced)

    async def hosts(self, route: Route, misses: Misses) -> AsyncGenerator[Host, None]:
        """The hosts of `route` with their addresses, each looked up when its rank's turn comes."""
        for rank in route.ranks:
            answers = await asyncio.gather(*map(self._addresses, rank), return_exceptions=True)
            hosts = []
            for name, found in zip(rank, answers, strict=True):
                if isinstance(found, DnsFailed):
                    misses.failed.append(str(found))
                elif isinstance(found, BaseException):
                    if not isinstance(found, NoSuchName):
                        raise found
                elif any(map(self._is_ours, found)):
                    misses.ours = name
                elif found:
                    hosts.append(Host(name, tuple(map(self._target, found[:_MOST_ADDRESSES]))))
            if misses.ours:
                return
            for host in hosts:
                yield host

    async def _addresses(self, name: str) -> Sequence[str]:
        if name.startswith("["):
            return (_literal(name),)
        return await self._names.addresses(
            name, ipv4=self._family is not AddressFamily.IPV6, ipv6=self._family is not AddressFamily.IPV4
        )

    def _is_ours(self, text: str) -> bool:
        if self._port != MX_PORT:
            return False
        address = ipaddress.ip_address(text)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address.is_unspecified or address.is_loopback or self._is_here(str(address))

    def _target(self, text: str) -> Address:
        family = socket.AF_INET6 if ":" in text else socket.AF_INET
        return family, (text, self._port)


def not_tried(route: Route, misses: Misses) -> Bounced | Deferred:
    """The outcome where no host of `route` could be tried."""
    if misses.failed:
        return _unknown("; ".join(misses.failed))
    if misses.ours:
        return _loop(route.domain, misses.ours)
    hosts = ", ".join(host for rank in route.ranks for host in rank)
    return Bounced(status="5.4.4", reason=f"no address is published for the mail of {route.domain} ({hosts})")


def _literal(domain: str) -> str:
    return domain[1:-1].lower().removeprefix("ipv6:")


def _unknown(reason: str) -> Deferred:
    advice = "the domain's own servers may be down; if no domain is found, look at the servers that this machine asks"
    return Deferred(status="4.4.3", reason=reason, advice=advice)


def _loop(domain: str, host: str) -> Bounced:
    return Bounced(
        status="5.4.6",
        reason=f"the mail of {domain} loops back to this machine ({host})",
        advice=f"an account above this one must take the mail of {domain}, or its MX must be mended",
    )
