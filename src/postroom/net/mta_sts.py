"""Fetches and keeps what domains demand of connections that bring them mail (MTA-STS, RFC 8461 section 3.3)."""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..model.clock import Clock
from ..policy.mta_sts import StsPolicy, parse_policy, record_id
from .dns import Dns, DnsFailed, NoSuchName
from .tls import client_context

if TYPE_CHECKING:
    import httpx2

#: For all of one fetch, and what is read of it (RFC 8461 section 3.3 names both).
PATIENCE_SECONDS = 60.0
LONGEST_BYTES = 64 * 1024

#: A fetch that failed is not tried again for so long, one that worked for a minute, however short its policy lasts.
FAILED_SECONDS = 300.0
SHORTEST_SECONDS = 60.0

#: A policy is fetched anew after so long, well before it ends: else who blocks the fetch at its end is rid of it.
REFRESH_SECONDS = 86_400.0

#: Domains of which something is kept.
MOST_DOMAINS = 10_000

#: Addresses of a policy host that are tried.
_MOST_ADDRESSES = 4


class PolicyUnavailable(Exception):
    """No policy could be fetched."""


@dataclass(slots=True)
class _Kept:
    """Of one domain: the policy that holds until `ends`, its id, and when to ask again whatever the id says."""

    policy: StsPolicy | None = None
    id: str = ""
    ends: float = 0.0
    ask_again: float = 0.0
    failed_id: str = ""
    fail_ends: float = 0.0


class StsPolicies:
    """The policies of domains; in memory, so that after a restart they are fetched anew.

    `port` and `context` (the TLS of policy hosts) are the standard's where none is given.
    """

    def __init__(self, dns: Dns, clock: Clock, *, port: int = 443, context: ssl.SSLContext | None = None) -> None:
        self._dns = dns
        self._clock = clock
        self._port = port
        self._context = context
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def policy(self, domain: str) -> StsPolicy | None:
        """What holds for `domain` now; None where it has no policy, or none can be had and none is kept."""
        found = await self._record_id(domain)
        kept, now = self._kept.get(domain), self._clock.monotonic()
        if kept is None:
            if not found:
                return None
            kept = self._keep(domain)
        policy = kept.policy if now < kept.ends else None
        if not found or (policy is not None and found == kept.id and now < kept.ask_again):
            return policy
        if found == kept.failed_id and now < kept.fail_ends:
            return policy
        try:
            policy = await self.fetch(domain)
        except PolicyUnavailable:
            kept.failed_id, kept.fail_ends = found, now + FAILED_SECONDS
            return policy
        age = policy.max_age.total_seconds()
        kept.policy, kept.id, kept.failed_id = policy, found, ""
        kept.ends = now + max(age, SHORTEST_SECONDS)
        kept.ask_again = now + max(min(age / 2, REFRESH_SECONDS), SHORTEST_SECONDS)
        return policy

    def _keep(self, domain: str) -> _Kept:
        kept = self._kept[domain] = _Kept()
        if len(self._kept) > MOST_DOMAINS:
            self._kept.popitem(last=False)
        return kept

    async def _record_id(self, domain: str) -> str:
        try:
            return record_id(await self._dns.texts(f"_mta-sts.{domain}"))
        except (NoSuchName, DnsFailed):
            return ""

    async def fetch(self, domain: str) -> StsPolicy:
        """The policy that `domain` serves now.

        Raises:
            PolicyUnavailable: it is not served as it must be; the text says why.
        """
        host = f"mta-sts.{domain}"
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                addresses = await self._dns.addresses(host)
                return parse_policy(await self._get(host, addresses[:_MOST_ADDRESSES]))
        except (NoSuchName, DnsFailed, ValueError) as error:
            raise PolicyUnavailable(f"{host}: {error}") from error
        except TimeoutError:
            raise PolicyUnavailable(f"{host} did not answer within {PATIENCE_SECONDS:g} s") from None

    async def _get(self, host: str, addresses: tuple[str, ...]) -> bytes:
        import httpx2  # here: only those who deliver directly need it

        context = self._context or client_context()
        failure = "it has no address"
        async with httpx2.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=None) as http:
            for address in addresses:
                # The name is resolved here, by the servers that `dns.servers` names; TLS asks for it and checks it.
                where = f"[{address}]" if ":" in address else address
                url = f"https://{where}:{self._port}/.well-known/mta-sts.txt"
                headers = {"Host": host, "Accept": "text/plain", "Accept-Encoding": "identity"}
                try:
                    async with http.stream("GET", url, headers=headers, extensions={"sni_hostname": host}) as answer:
                        return await _text(answer)
                except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                    failure = str(error) or type(error).__name__
        raise PolicyUnavailable(f"{host}: {failure}")


async def _text(answer: httpx2.Response) -> bytes:
    """The body of a policy host's answer; anything but a text of 200 is none (redirects above all)."""
    if answer.status_code != 200:
        raise ValueError(f"it answers {answer.status_code}")
    if answer.headers.get("content-type", "").partition(";")[0].strip().lower() != "text/plain":
        raise ValueError("it serves no text/plain")
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise ValueError("it serves a coded text")
    body = b""
    async for piece in answer.aiter_raw():
        body += piece
        if len(body) > LONGEST_BYTES:
            raise ValueError(f"it serves more than {LONGEST_BYTES} octets")
    return body
