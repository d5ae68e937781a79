"""The address guard: where what others name may not lead (SPEC section 9.7).

Every address that a name has is looked at after it was resolved, and what passes is what is connected to: a name is
not resolved a second time, so that no answer can change in between (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Sequence

from .stream import Address, ConnectFailed, Resolver

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: All that is given out of IPv6 (RFC 4291 section 2.4), but for NAT64, which is what it carries (RFC 6052).
_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_DOCUMENTATION = ipaddress.IPv6Network("3fff::/20")  # RFC 9637
_RELAYS = ipaddress.IPv4Network("192.88.99.0/24")  # of 6to4, RFC 7526
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")  # RFC 6598
_PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")  # RFC 6890; clouds have metadata there too

#: Services of clouds that answer inside of them on an address that looks public.
_METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})

#: What a guarded failure is told by.
GUARDED = "guarded"


class AddressGuard:
    """Lets pass what is public, and the networks and names of `exceptions` (as in `Application.may_connect_to`)."""

    def __init__(self, exceptions: Iterable[str] = ()) -> None:
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._names: set[str] = set()
        for entry in exceptions:
            try:
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError:
                self._names.add(entry.lower())

    def knows(self, name: str) -> bool:
        """Whether a name may lead anywhere: it is among the exceptions, or one `*.domain` of them covers it."""
        name = name.lower().rstrip(".")
        if name in self._names:
            return True
        labels = name.split(".")
        return any(f"*.{'.'.join(labels[n:])}" in self._names for n in range(1, len(labels)))

    def refuses(self, address: str) -> str:
        """What kind of address `address` is, where it must not be connected to; "" where it may."""
        found = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        if any(found in network for network in self._networks):
            return ""
        return next(filter(None, map(_kind, (found, *_within(found)))), "")

    def refuses_host(self, host: str) -> str:
        """As `refuses`, of what can be told without the DNS: a literal address, or this machine by name."""
        if self.knows(host):
            return ""
        try:
            return self.refuses(host)
        except ValueError:
            is_here = host.lower().rstrip(".").rpartition(".")[2] == "localhost"
            return "a loopback address" if is_here else ""

    def resolver(self, resolve: Resolver, exempt: Collection[tuple[str, int]] = ()) -> Resolver:
        """`resolve`, with what must not be connected to left out; hosts and ports of `exempt` are not looked at.

        It raises ConnectFailed (kind "guarded") where nothing is left.
        """

        async def guarded(host: str, port: int) -> Sequence[Address]:
            addresses = await resolve(host, port)
            if (host, port) in exempt or self.knows(host):
                return addresses
            kinds = [self.refuses(str(where[0])) for _, where in addresses]
            if addresses and all(kinds):
                reason = f"{host} leads to {kinds[0]}, which the address guard does not let pass"
                raise ConnectFailed("resolve", GUARDED, reason)
            return [address for address, kind in zip(addresses, kinds, strict=True) if not kind]

        return guarded


def _within(address: IpAddress) -> list[IpAddress]:
    """The IPv4 addresses that an IPv6 address leads to by a way of transition."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[IpAddress] = []
    if address.sixtofour is not None:  # RFC 3056
        found.append(address.sixtofour)
    if address.teredo is not None:  # RFC 4380
        found += address.teredo
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found


def _kind(address: IpAddress) -> str:
    """What keeps an address from being public; "" where it is."""
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_unspecified:
        return "the unspecified address"
    if address.is_multicast:
        return "a multicast address"
    if address in _METADATA:
        return "a metadata service"
    if address in _SHARED:
        return "a shared address (RFC 6598)"
    if address in _PROTOCOLS or address in _RELAYS:
        return "a reserved address"
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_site_local:
            return "a private address"
        if address in _NAT64:
            return ""  # it is what it carries
        if (address not in _UNICAST and not address.is_private) or address in _DOCUMENTATION:
            return "a reserved address"
    if address.is_private:
        return "a private address"
    return "" if address.is_global else "a reserved address"
