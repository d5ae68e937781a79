"""POP-before-SMTP: the POP3 login that opens a relay, made when it is needed, and once for all connections that need it
together (SPEC section 2.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from ..model.account import Account
from ..model.clock import Clock
from ..model.outcome import Bounced, Deferred, Delivered, NotSent, Outcome
from ..net import pop3_login
from ..net.pop3_login import PopLoggedIn
from ..net.stream import Resolver
from ..policy.classify import Stage, classify
from ..protocol.smtp.reply_reader import ReplyLimits
from . import TransportClosed

_log = structlog.get_logger()

#: The commands whose refusal may mean that no login is known.
_STAGES = {"MAIL": Stage.MAIL, "RCPT": Stage.RCPT}

#: How old a login must be until a denial may cause the next, where the last that it caused helped nobody; it doubles
#: with each that helps nobody.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 60.0, 960.0

LogIn = Callable[[], Awaitable[PopLoggedIn]]


class Pool(Protocol):
    """The connections that a login opened the way for."""

    def retire(self) -> None:
        """Give them nothing more."""


class PopBeforeSmtp:
    """The logins of one account at one revision: `log_in` makes one. They are numbered from 1."""

    def __init__(self, account: Account, clock: Clock, log_in: LogIn) -> None:
        self.number = 0  # of the login that serves, or served last
        self._account = account
        self._clock = clock
        self._log_in = log_in
        self._began = self._serves_until = float("-inf")
        self._pause_seconds = 0.0  # no login is made for a denial while the last one is younger
        self._in_vain = 0  # the last login that was made for a denial and helped nobody
        self._making: asyncio.Task[None] | None = None
        self._denied: dict[str, int] = {}  # recipients that go again, with the login under which they were refused
        self._closed = False

    async def ready(self) -> int:
        """Wait until SMTP may start; the number of the login that opened the relay.

        Raises:
            ConnectFailed: the login failed.
            TransportClosed: `close` was called.
        """
        if self._making is None and self._clock.monotonic() < self._serves_until:
            return self.number
        if self._closed:
            raise TransportClosed
        if self._making is None:
            self._making = asyncio.create_task(self._make(), name=f"POP3 login {self._account.name}")
            self._making.add_done_callback(self._made)
        making = self._making
        await asyncio.wait([making])
        if making.cancelled():
            raise TransportClosed
        making.result()
        return self.number

    def stands(self, number: int) -> bool:
        """Whether this is still the last login, and the relay has not denied it."""
        return number == self.number and self._serves_until > float("-inf")

    def forget(self) -> None:
        """Whatever opens the relay next needs another login."""
        self._serves_until = float("-inf")

    def judged(
        self, recipients: Sequence[str], outcomes: Sequence[Outcome], number: int, pool: Pool
    ) -> Sequence[Outcome]:
        """`outcomes`, where those whom another login may help are NotSent; they were sent to under login `number`.

        Each recipient has one more login only: refused again, it is what the rules say. So it is at once while logins
        that were made for others help nobody.
        """
        if not self._denied and not any(map(_asks_for_login, outcomes)):
            return outcomes
        pairs = zip(recipients, outcomes, strict=True)
        return [self._again(recipient, outcome, number, pool) for recipient, outcome in pairs]

    def close(self) -> None:
        """Log in no more."""
        self._closed = True
        if self._making is not None:
            self._making.cancel()

    def _again(self, recipient: str, outcome: Outcome, number: int, pool: Pool) -> Outcome:
        refused_before = self._denied.pop(recipient, number)
        if not _asks_for_login(outcome):
            if refused_before < number and isinstance(outcome, Delivered):
                self._pause_seconds = 0.0
            return outcome
        if refused_before < number:
            self._was_in_vain(number)
            return outcome
        if number == self.number:
            if self._clock.monotonic() < self._began + self._pause_seconds:
                return outcome
            self.forget()
            pool.retire()  # a relay may have looked at the address when they were opened
        self._denied[recipient] = number
        assert outcome.reply is not None
        reason = f"{outcome.reply.text}: it goes again after another POP3 login"
        return NotSent(reason=reason, reply=outcome.reply, remote_host=outcome.remote_host)

    def _was_in_vain(self, number: int) -> None:
        if number > self._in_vain:
            self._in_vain = number
            longer = max(2 * self._pause_seconds, _FIRST_PAUSE_SECONDS)
            self._pause_seconds = min(longer, _LONGEST_PAUSE_SECONDS)

    async def _make(self) -> None:
        made = await self._log_in()
        number = self.number + 1
        self._denied = {recipient: under for recipient, under in self._denied.items() if under == self.number}
        pop = self._account.pop
        await _interval_is_over(made, self._account, self._clock)
        self.number, self._began = number, made.began
        self._serves_until = made.began + pop.validity.total_seconds()
        _log.info("pop3_login", account=self._account.name, host=self._account.pop_host, number=number)

    def _made(self, making: asyncio.Task[None]) -> None:
        self._making = None
        if not making.cancelled():
            making.exception()  # those who waited are told


async def log_in_once(account: Account, clock: Clock, reply_limits: ReplyLimits, resolver: Resolver) -> None:
    """Log in for one connection alone, and wait until SMTP may start.

    Raises:
        ConnectFailed: the login failed.
    """
    made = await pop3_login.log_in(account, clock, reply_limits=reply_limits, resolver=resolver)
    await _interval_is_over(made, account, clock)


async def _interval_is_over(made: PopLoggedIn, account: Account, clock: Clock) -> None:
    wait = made.began + account.pop.interval.total_seconds() - clock.monotonic()
    if wait > 0:
        over = asyncio.Event()
        timer = clock.call_later(wait, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()


def _asks_for_login(outcome: Outcome) -> bool:
    if not isinstance(outcome, Bounced | Deferred) or outcome.reply is None:
        return False
    stage = _STAGES.get(outcome.reply.command)
    return stage is not None and classify(stage, outcome.reply).pop
