"""Whether an address is this machine's own: only such a one can be sent from."""

from __future__ import annotations

import ipaddress
import socket


def is_own(address: str) -> bool:
    """Whether a socket can be bound to `address`; nothing is sent."""
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
