"""The relay of the demo: aiosmtpd, in a thread of its own, which keeps what it is given."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from aiosmtpd.controller import Controller


@dataclass(frozen=True, slots=True)
class Arrival:
    """One transaction: the octets as they came in, and when (monotonic seconds)."""

    at: float
    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes

    @property
    def message_id(self) -> str:
        """The value of its Message-ID field."""
        for line in self.content.partition(b"\r\n\r\n")[0].split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"message-id":
                return value.strip().decode("ascii", "replace")
        return ""

    @property
    def body(self) -> bytes:
        """What follows the empty line that ends the header section."""
        return self.content.partition(b"\r\n\r\n")[2]


class Relay:
    """`with Relay(port) as relay:`; `relay.arrivals` grows while it runs."""

    def __init__(self, port: int) -> None:
        self.arrivals: list[Arrival] = []
        self._lock = threading.Lock()
        self._controller = Controller(self, hostname="127.0.0.1", port=port, data_size_limit=64 * 1024 * 1024)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Called by aiosmtpd at each end of data."""
        arrival = Arrival(time.monotonic(), envelope.mail_from, tuple(envelope.rcpt_tos), envelope.original_content)
        with self._lock:
            self.arrivals.append(arrival)
        return "250 2.0.0 kept"

    def __enter__(self) -> Relay:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()
