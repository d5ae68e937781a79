"""aiosmtpd as a relay that keeps the envelopes as they came."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.interop.conftest import ClosingController
from tests.interop.witness import Taken, Witness

LOGIN = ("mailbox", "correct horse")
REFUSALS = {"unknown": "550 5.1.1 no such user", "greylisted": "450 4.2.0 come again later"}


@dataclass
class Kept:
    """aiosmtpd's hooks."""

    witness: Witness

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Refuse some."""
        if refusal := REFUSALS.get(address.partition("@")[0]):
            return refusal
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep it."""
        mail = " ".join([f"MAIL FROM:<{envelope.mail_from}>", *envelope.mail_options])
        lines = [mail, *(" ".join([f"RCPT TO:<{path}>", *envelope.rcpt_options]) for path in envelope.rcpt_tos)]
        data: Any = session.auth_data  # as `authenticate` left it
        login = data.decode() if session.authenticated else ""
        assert isinstance(envelope.content, bytes) and server.transport is not None
        encrypted = server.transport.get_extra_info("ssl_object") is not None
        recipients = tuple(envelope.rcpt_tos)
        self.witness.add(Taken(str(session.peer), login, encrypted, tuple(lines), recipients, envelope.content))
        return "250 2.0.0 kept"


def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword) -> AuthResult:
    """Whether it is LOGIN."""
    success = (data.login.decode(), data.password.decode()) == LOGIN
    return AuthResult(success=success, auth_data=f"{mechanism} {data.login.decode()}".encode())


@contextmanager
def running_aio_relay(port: int, witness: Witness, **options: Any) -> Iterator[int]:
    """One on `port` that demands a login, unless `options` say otherwise."""
    kept = Kept(witness)
    usual = {"authenticator": authenticate, "auth_required": True, "decode_data": False}
    usual |= {"data_size_limit": 40_000_000, "enable_SMTPUTF8": True}
    controller = ClosingController(kept, hostname="127.0.0.1", port=port, **(usual | options))
    controller.start()
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(controller.end_connections(), controller.loop).result(30)
        controller.stop(no_assert=True)
