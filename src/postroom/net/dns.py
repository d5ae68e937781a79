"""Asks the DNS: MX, A, AAAA and TXT for direct delivery, SRV for proposals; answers are kept as long as they may be."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..model.clock import Clock
from ..policy.mail_exchange import MailExchanger

if TYPE_CHECKING:
    import dns.asyncresolver

T = TypeVar("T")

#: How long one question may take, over all servers.
PATIENCE_SECONDS = 10.0

#: Answers are kept as long as their TTL says, within these bounds; that there is no such name, for the shorter one.
SHORTEST_SECONDS = 5.0
LONGEST_SECONDS = 3600.0
NO_SUCH_NAME_SECONDS = 60.0

#: Answers that are kept.
MOST_ANSWERS = 10_000

#: After so long the machine's own list of servers (resolv.conf) is read again.
SYSTEM_SECONDS = 60.0

#: Octets that an answer over UDP may have: more would be cut up on the way.
_PAYLOAD = 1232


class DnsFailed(Exception):
    """Nobody can say now: the servers are silent, or have failed."""


class NoSuchName(Exception):
    """There is no such name, of any type."""


@dataclass(frozen=True, slots=True)
class Service:
    """An SRV record (RFC 2782); an empty host: the service is not offered."""

    priority: int
    weight: int
    port: int
    host: str


class Dns:
    """Questions to `servers` (IP address and port), or to the machine's own where there are none."""

    def __init__(self, clock: Clock, servers: Sequence[tuple[str, int]] = ()) -> None:
        self._clock = clock
        self._servers = tuple(servers)
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._resolver_until = 0.0
        self._answers: OrderedDict[tuple[str, str], tuple[float, tuple[Any, ...] | None]] = OrderedDict()

    async def mail_exchangers(self, domain: str) -> tuple[MailExchanger, ...]:
        """The MX records of `domain`.

        Raises:
            NoSuchName: there is no such domain.
            DnsFailed: nobody can say.
        """
        return await self._ask(domain, "MX", lambda one: MailExchanger(one.preference, _text(one.exchange)))

    async def addresses(self, host: str, *, ipv4: bool = True, ipv6: bool = True) -> tuple[str, ...]:
        """The IP addresses of `host`, those of version 6 first. Raises as `mail_exchangers` where there are none."""
        kinds = [kind for kind, wanted in (("AAAA", ipv6), ("A", ipv4)) if wanted]
        answers = await asyncio.gather(
            *(self._ask(host, kind, lambda one: str(one.address)) for kind in kinds), return_exceptions=True
        )
        found = tuple(one for answer in answers if isinstance(answer, tuple) for one in answer)
        failures = [one for one in answers if isinstance(one, BaseException)]
        if failures and not found:
            raise min(failures, key=lambda one: isinstance(one, NoSuchName))  # what may pass before what is for good
        return found

    async def texts(self, name: str) -> tuple[bytes, ...]:
        """The TXT records of `name`, each in one piece. Raises as `mail_exchangers`."""
        return await self._ask(name, "TXT", lambda one: b"".join(one.strings))

    async def services(self, name: str) -> tuple[Service, ...]:
        """The SRV records of `name`, as in `_submission._tcp.example.org`. Raises as `mail_exchangers`."""
        return await self._ask(name, "SRV", lambda one: Service(one.priority, one.weight, one.port, _text(one.target)))

    async def _ask(self, name: str, kind: str, read: Callable[[Any], T]) -> tuple[T, ...]:
        key = (name.lower().rstrip("."), kind)
        kept = self._answers.get(key)
        if kept is not None and kept[0] > self._clock.monotonic():
            if kept[1] is None:
                raise NoSuchName(f"there is no {key[0]} in the DNS")
            return kept[1]
        return await self._look_up(key, read)

    async def _look_up(self, key: tuple[str, str], read: Callable[[Any], T]) -> tuple[T, ...]:
        import dns.exception  # here: only those who deliver directly need them
        import dns.name
        import dns.resolver

        name, kind = key
        try:
            asked = dns.name.from_text(name.encode("ascii"))
            answer = await self._server().resolve(asked, kind, raise_on_no_answer=False, search=False)
        except (dns.resolver.NXDOMAIN, dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, ValueError):
            self._keep(key, None, NO_SUCH_NAME_SECONDS)
            raise NoSuchName(f"there is no {name} in the DNS") from None
        except (dns.exception.DNSException, OSError) as error:
            raise DnsFailed(f"the DNS does not say ({kind} of {name}): {_reason(error)}") from error
        found = tuple(read(one) for one in answer.rrset or ())
        seconds = float(answer.chaining_result.minimum_ttl)
        self._keep(key, found, min(max(seconds, SHORTEST_SECONDS), LONGEST_SECONDS))
        return found

    def _keep(self, key: tuple[str, str], found: tuple[Any, ...] | None, seconds: float) -> None:
        self._answers[key] = (self._clock.monotonic() + seconds, found)
        self._answers.move_to_end(key)
        if len(self._answers) > MOST_ANSWERS:
            self._answers.popitem(last=False)

    def _server(self) -> dns.asyncresolver.Resolver:
        import dns.asyncresolver
        import dns.nameserver

        now = self._clock.monotonic()
        if self._resolver is None or (not self._servers and now >= self._resolver_until):
            resolver = dns.asyncresolver.Resolver(configure=not self._servers)
            if self._servers:
                resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in self._servers]
            resolver.lifetime = PATIENCE_SECONDS
            resolver.use_edns(0, 0, _PAYLOAD)
            self._resolver, self._resolver_until = resolver, now + SYSTEM_SECONDS
        return self._resolver


def _text(name: Any) -> str:
    return str(name.to_text(omit_final_dot=True)).lower() if len(name.labels) > 1 else ""


def _reason(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said[:300] or type(error).__name__
