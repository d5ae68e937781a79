"""What is remembered of client addresses: open connections, and failed logins of the last minute (SPEC section 9.7)."""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

#: The seconds that a failed login counts.
WINDOW_SECONDS = 60.0

#: Addresses and names remembered; the one whose last failure is the oldest goes first.
MAX_REMEMBERED = 4096


class Clients:
    """Shared by all listeners of a gateway. Times are seconds of one monotonic clock.

    `max_failures` is how many logins of one address, or for one name, may fail in a minute; `room` says how many
    connections there may be in all.
    """

    def __init__(self, max_connections: int, max_failures: int = 10, room: Callable[[], int] = lambda: 1 << 30) -> None:
        self._max_connections = max_connections
        self._max_failures = max_failures
        self._room = room
        self._admitted = 0
        self._open: Counter[str] = Counter()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def change(self, max_connections: int, max_failures: int) -> None:
        """Other limits from now on; who has more connections open keeps them."""
        self._max_connections = max_connections
        self._max_failures = max_failures
        for key, times in self._failures.items():
            self._failures[key] = deque(times, maxlen=max_failures)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more, whoever it is: the descriptors that are left are for the mail."""
        return self._admitted >= self._room()

    def admit(self, peer_ip: str) -> bool:
        """Count one more connection of this client, unless it has as many as it may.

        Programs on this machine share one address, and a burst of them is no attack: loopback has no limit.
        """
        client = client_network(peer_ip)
        if self._open[client] >= self._max_connections and not is_loopback(peer_ip):
            return False
        self._open[client] += 1
        self._admitted += 1
        return True

    def left(self, peer_ip: str) -> None:
        """A connection that was admitted has ended."""
        client = client_network(peer_ip)
        self._admitted -= 1
        self._open[client] -= 1
        if self._open[client] <= 0:
            del self._open[client]

    def is_throttled(self, peer_ip: str, login: str, now: float) -> bool:
        """Whether no login of this client, or for this name, is looked at now."""
        for key in _keys(peer_ip, login):
            times = self._failures.get(key)
            if times is not None and len(times) >= self._max_failures and now - times[0] < WINDOW_SECONDS:
                return True
        return False

    def login_failed(self, peer_ip: str, login: str, now: float) -> None:
        """Count a failed login."""
        for key in _keys(peer_ip, login):
            self._failures.setdefault(key, deque(maxlen=self._max_failures)).append(now)
            self._failures.move_to_end(key)
        while len(self._failures) > MAX_REMEMBERED:
            self._failures.popitem(last=False)


def plain_address(peer_ip: str) -> str:
    """`peer_ip` without a scope, and IPv4 as IPv4 where a socket of both families wrote it as IPv6."""
    text = peer_ip.partition("%")[0]
    mapped = ipaddress.IPv6Address(text).ipv4_mapped if ":" in text else None
    return str(mapped) if mapped else text


def address_literal(peer_ip: str) -> str:
    """How the client is named where it gave no name (RFC 5321 section 4.1.3)."""
    return f"[IPv6:{peer_ip}]" if ":" in peer_ip else f"[{peer_ip}]"


def is_loopback(peer_ip: str) -> bool:
    """Whether the client is on this machine."""
    return ipaddress.ip_address(peer_ip).is_loopback


def client_network(peer_ip: str) -> str:
    """What counts as one client: the address, or the /64 of an IPv6 address, which one machine can fill at will."""
    if ":" not in peer_ip:
        return peer_ip
    return str(ipaddress.IPv6Network((peer_ip, 64), strict=False))


def _keys(peer_ip: str, login: str) -> tuple[str, str]:
    # Names are told apart from addresses, and none is so long that remembering it costs much.
    return client_network(peer_ip), "name " + login.lower()[:128]
