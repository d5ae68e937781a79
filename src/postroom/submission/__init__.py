"""Mail by SMTP submission (RFC 6409): listeners, their connections, and what they ask of the gateway."""

from __future__ import annotations

import asyncio
from typing import Protocol

from ..model.application import Application
from ..model.clock import Clock
from ..model.content import ContentId
from ..model.submission import Accepted, Submission
from ..pending import Pending


class Applications(Protocol):
    """Who is asking; answered at once, from memory."""

    def snapshot(self) -> tuple[Application, ...]:
        """All applications; another tuple after each change."""

    def identify(self, peer_ip: str) -> Application | None:
        """The application that may submit from this address without a password."""

    def authenticate(self, login: str, password: str, peer_ip: str) -> Application:
        """The application with these credentials; raises Unauthenticated."""


class Staging(Protocol):
    """Where large content goes while it arrives; see `store.QueueStore.stage`."""

    def stage(self, content_id: ContentId, index: int, chunk: bytes) -> asyncio.Future[None]:
        """Keep one chunk."""


class Intake(Protocol):
    """What this door asks of the gateway."""

    @property
    def clock(self) -> Clock:
        """Time."""

    @property
    def store(self) -> Staging:
        """Large content."""

    @property
    def applications(self) -> Applications:
        """Who may submit."""

    def submit(self, submission: Submission) -> Pending[Accepted]:
        """Take a message; known once it is durable. GatewayError at once, or later."""

    def may_send_as(self, application: Application, address: str) -> bool:
        """Whether `address` ("" for the null reverse-path) is an allowed sender."""
