"""A room whose reporter runs, and what leaves of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from postroom.model.envelope import DsnRequest, Envelope
from postroom.model.outcome import Bounced, Deferred, Unknown
from postroom.model.queue import DeliveryState, MessageId
from postroom.model.reply import Reply
from postroom.queue.bounce import GATHER, NotificationRules, Reporter, ReportTo
from postroom.transports import Transaction
from tests.flow.conftest import Room
from tests.reading_reports import ReadReport, read_report

NO_SUCH = Bounced(
    status="5.1.1",
    reason="550 5.1.1 no such user",
    advice="check the address",
    reply=Reply(550, ("no such user",), "5.1.1", "RCPT"),
    remote_host="relay.test [192.0.2.1]",
)
LATER = Deferred(
    status="4.2.2", reason="452 4.2.2 mailbox full", reply=Reply(452, ("mailbox full",), "4.2.2", "RCPT"),
    remote_host="relay.test [192.0.2.1]",
)  # fmt: skip
LOST = Unknown(status="4.4.2", reason="the end of data was written and no reply came", remote_host="relay.test")
RULES = NotificationRules(
    to=ReportTo.SENDER,
    postmaster="pm@x.test",
    sender="",
    account="",
    hostname="mx.test",
    max_returned_bytes=1024 * 1024,
    window_end=lambda lane, began, own: began + timedelta(2),
)


@dataclass
class Reporting:
    """A room whose reporter runs."""

    room: Room
    reporter: Reporter

    @property
    def reports(self) -> list[Transaction]:
        """The reports that left."""
        return [sent for sent in self.room.transports["relay1"].sent if b"multipart/report" in sent.head]

    async def report_on(self, message_id: MessageId) -> ReadReport:
        """The one report that the message led to, once it was sent."""
        detail = await self.room.until_event("reported")
        await self.room.store.until(self._is_sent)
        view = await self.room.store.message(message_id)
        assert detail in [event.detail for event in view.events]
        return read_report(await self.raw())

    async def raw(self) -> bytes:
        """The one report as it left."""
        (sent,) = self.reports
        assert sent.envelope.reverse_path == ""
        body = sent.body
        if isinstance(body, bytes):
            return sent.head + body
        return sent.head + b"".join([chunk async for chunk in self.room.store.chunks(body)])

    async def _is_sent(self) -> bool:
        return bool(self.reports)

    async def quiet(self) -> None:
        """Nothing is noted any more, and nothing is on its way."""

        async def is_quiet() -> bool:
            await self.reporter.step()
            moving = {state for (_, state), count in (await self.room.store.counts()).items() if count}
            noticed = await self.room.store.noticed(self.room.clock.now() + GATHER)
            return not noticed and not moving & {DeliveryState.QUEUED, DeliveryState.SENDING}

        await self.room.store.until(is_quiet)


Report = Callable[..., contextlib.AbstractAsyncContextManager[Reporting]]


@asynccontextmanager
async def reporting_in(room: Room, **rules: Any) -> AsyncIterator[Reporting]:
    """A reporter by these rules, running."""
    reporter = Reporter(
        room.store, room.clock, room.intake, replace(RULES, **rules), lambda name: room.application, os.urandom
    )
    room.noted.append(reporter.notice)
    task = asyncio.create_task(reporter.run())
    yield Reporting(room, reporter)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def asking(recipients: tuple[str, ...] = ("b@y.test",), **asked: Any) -> Envelope:
    """An envelope from a@x.test that asks for something by DSN."""
    nothing = ("",) * len(recipients)
    return Envelope("a@x.test", recipients, dsn=DsnRequest(**{"notify": nothing, "orcpt": nothing} | asked))
