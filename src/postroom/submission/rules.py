"""What all connections of one listener share, and the words of its refusals."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import GatewayError, InvalidInput, LimitReached, Refused, edge
from ..protocol.smtp.server import ServerLimits, ServerMachine
from . import Intake
from .clients import Clients

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: What strangers are told (the cause goes to the log); by enhanced status.
_TEXTS = {
    "5.7.8": "Authentication failed",
    "5.3.4": "Message too large",
    "4.3.1": "No room for the message now",
    "4.3.2": "Not taking messages now",
}


@dataclass(slots=True, kw_only=True)
class SessionRules:
    """The rules of one listener; seconds and octets.

    `is_for_devices` is its profile, `clear_login` whether it takes a login in clear from elsewhere than this machine,
    `networks` from where it may be used (empty: from everywhere).
    """

    gateway: Intake
    limits: ServerLimits
    hostname: str
    idle_seconds: float
    clients: Clients
    content_seconds: float = 600.0
    content_rate_bytes: int = 8000
    max_mime_depth: int = 100
    tls: str = "none"
    context: Callable[[], ssl.SSLContext] | None = None
    is_for_devices: bool = False
    clear_login: bool = False
    networks: tuple[Network, ...] = ()
    draining: bool = False

    def admits(self, peer_ip: str) -> bool:
        """Whether a client with this address may use the listener at all."""
        if not self.networks:
            return True
        address = ipaddress.ip_address(peer_ip)
        return any(address in network for network in self.networks)

    def machine(self, *, is_loopback: bool, secure: bool) -> ServerMachine:
        """The machine for a client; what is on this machine itself is trusted with a login in clear and a bare LF."""
        return ServerMachine(
            self.limits,
            self.hostname,
            secure=secure,
            starttls=self.tls == "starttls",
            clear_login=is_loopback or self.clear_login,
            normalise_bare_lf=is_loopback or self.is_for_devices,
            any_helo=self.is_for_devices,
        )

    def content_due(self, began: float, content_bytes: int) -> float:
        """When content that began then and has this size must be whole."""
        taken = min(content_bytes, self.limits.max_size_bytes)
        return began + self.content_seconds + taken / self.content_rate_bytes


def refusal(error: GatewayError) -> tuple[int, str, str]:
    """Reply code, enhanced status and text for a message that was not taken."""
    told = edge(error)
    code, status = told.reply_code, told.enhanced
    if isinstance(error, Refused):
        code, status = error.reply_code, error.status
    default = "Try again later" if code < 500 else "Refused"
    # A rule's own words name the application and the mend; whoever gets here is a known application.
    is_told = isinstance(error, InvalidInput | Refused | LimitReached)
    return code, status, str(error) if is_told else _TEXTS.get(status, default)
