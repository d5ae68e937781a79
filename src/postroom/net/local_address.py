"""Addresses of this machine: which are its own, as only such a one can be sent from, and what it calls itself by."""

from __future__ import annotations

import ipaddress
import socket


def is_own(address: str) -> bool:
    """Whether a socket can be bound to `address`; nothing is sent."""
    try:
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def is_here(address: str) -> bool:
    """Whether what is sent to `address` stays on this machine; nothing is sent.

    Unlike `is_own` it is not misled where the system lets sockets be bound to addresses of others.
    """
    try:
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return ipaddress.ip_address(str(probe.getsockname()[0])) == ipaddress.ip_address(address)
    except OSError:
        return False


def address_literal(name: object) -> str:
    """What a client without a name calls itself: its address, as `getsockname` gives it (RFC 5321 section 4.1.3)."""
    address = str(name[0]).partition("%")[0] if isinstance(name, tuple) and name else "127.0.0.1"
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def family_of(address: str) -> socket.AddressFamily:
    """The family of an IP address."""
    return socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
