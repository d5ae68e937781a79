"""A listener: takes connections on one address, and ends them in order when it stops."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from collections.abc import Callable

import structlog

from ..config import ListenerSettings, SmtpSettings
from ..errors import Fault, GatewayError, InvalidInput
from ..net.tls import server_context
from ..protocol.smtp.server import ServerLimits
from . import Intake
from .acceptor import Acceptor, listening_socket
from .clients import Clients
from .rules import SessionRules
from .session import Session

_log = structlog.get_logger()


class Listener:
    """One address. `clients` is shared by the listeners of a gateway, so that limits hold over all of them."""

    def __init__(
        self,
        gateway: Intake,
        settings: ListenerSettings,
        smtp: SmtpSettings,
        *,
        hostname: str,
        clients: Clients | None = None,
    ) -> None:
        self._gateway = gateway
        self._settings = settings
        self._certificate = CertificateFiles(settings.certificate, settings.key, settings.minimum_tls)
        self._rules = SessionRules(
            gateway=gateway,
            limits=limits(smtp),
            hostname=smtp.hostname or hostname,
            idle_seconds=smtp.idle_timeout.total_seconds(),
            clients=clients or clients_of(smtp),
            content_seconds=smtp.content_timeout.total_seconds(),
            content_rate_bytes=smtp.content_rate_bytes,
            max_mime_depth=smtp.max_mime_depth,
            tls=settings.tls,
            context=self._certificate.context,
            is_for_devices=settings.profile == "devices",
            clear_login=settings.allow_clear_login,
            networks=tuple(map(ipaddress.ip_network, settings.networks)),
        )
        self._sessions: set[Session] = set()
        self._acceptor: Acceptor | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    def change(self, smtp: SmtpSettings) -> None:
        """Other limits: the next connection has them, and all do for silence and for the time of content."""
        rules = self._rules
        rules.limits = limits(smtp)
        rules.idle_seconds = smtp.idle_timeout.total_seconds()
        rules.content_seconds = smtp.content_timeout.total_seconds()
        rules.content_rate_bytes = smtp.content_rate_bytes
        rules.max_mime_depth = smtp.max_mime_depth

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once started: the port that was taken where 0 was asked for."""
        assert self._acceptor is not None
        return self._acceptor.address

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._sessions)

    async def start(self) -> None:
        """Bind and accept.

        Raises:
            InvalidInput: the address can't be bound, or certificate or key can't be used.
        """
        settings = self._settings
        if settings.tls != "none":
            self._certificate.load()
        try:
            listening = listening_socket(settings.address, settings.port)
        except OSError as error:
            where = f"{settings.address} port {settings.port}"
            fault = f"cannot listen on {where}: {error.strerror or error}"
            raise InvalidInput(
                Fault("smtp.listeners", fault, "end the program that holds it, or choose another port")
            ) from error
        self._acceptor = Acceptor(listening, self._session, self._gateway.clock)
        host, port = self.address
        _log.info("listening", address=host, port=port, tls=settings.tls, profile=settings.profile)
        if settings.tls != "none" and settings.minimum_tls in ("1.0", "1.1"):
            _log.warning("unsafe_tls_allowed", address=host, port=port, minimum_tls=settings.minimum_tls)

    async def stop(self, patience: float = 4.0) -> None:
        """Take no more connections, let transactions under way end, and close; after `patience` seconds at once."""
        if self._acceptor is None:
            return
        await self._acceptor.stop()
        self._rules.draining = True
        for session in tuple(self._sessions):
            session.drain()
        timer = self._gateway.clock.call_later(patience, self._abort)
        try:
            await self._empty.wait()
        finally:
            timer.cancel()

    def _session(self) -> Session:
        return Session(self._rules, self)

    def opened(self, session: Session) -> None:
        """See `session.Owner`."""
        self._sessions.add(session)
        self._empty.clear()

    def ended(self, session: Session) -> None:
        """See `session.Owner`."""
        self._sessions.discard(session)
        if not self._sessions:
            self._empty.set()

    def _abort(self) -> None:
        for session in tuple(self._sessions):
            session.abort()


def limits(smtp: SmtpSettings) -> ServerLimits:
    """The limits that the settings set."""
    return ServerLimits(
        max_size_bytes=smtp.max_size_bytes,
        max_header_bytes=smtp.max_header_bytes,
        max_recipients=smtp.max_recipients,
        max_errors=smtp.max_errors,
        max_auth_failures=smtp.max_auth_failures,
        command_line_bytes=smtp.command_line_bytes,
        auth_line_bytes=smtp.auth_line_bytes,
    )


def clients_of(smtp: SmtpSettings, room: Callable[[], int] = lambda: 1 << 30) -> Clients:
    """What is to be remembered of clients, by all listeners together; `room` as of `Clients`."""
    return Clients(smtp.max_connections_per_client, smtp.max_login_failures_per_minute, room)


class CertificateFiles:
    """A TLS context from two files, made anew when they change; while they can't be used, the last one stays."""

    def __init__(self, certificate: str, key: str, minimum_tls: str = "1.2") -> None:
        self._paths = (certificate, key)
        self._minimum_tls = minimum_tls
        self._stamp: object = None
        self._context: ssl.SSLContext | None = None

    def load(self) -> None:
        """Read the files.

        Raises:
            InvalidInput: they can't be read, or do not belong together.
        """
        certificate, key = self._paths
        try:
            stamp = self._stamp_now()
            self._context = server_context(certificate, key, self._minimum_tls)
            self._stamp = stamp
        except (OSError, ValueError) as error:
            fault = f"certificate {certificate!r} with key {key!r} can't be used: {error}"
            raise InvalidInput(
                Fault("smtp.listeners", fault, "name PEM files that belong together and are readable")
            ) from error

    def context(self) -> ssl.SSLContext:
        """The context for the next handshake.

        Raises:
            InvalidInput: there never was one, and there is none now.
        """
        try:
            if self._context is None or self._stamp_now() != self._stamp:
                self.load()
        except (OSError, GatewayError) as error:
            if self._context is None:
                raise
            _log.warning("certificate_not_reloaded", reason=str(error))
        assert self._context is not None
        return self._context

    def _stamp_now(self) -> object:
        stats = [os.stat(path) for path in self._paths if path]
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)
