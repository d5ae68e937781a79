"""Tests an account's connection stage by stage, by the code that delivers with it (SPEC section 7).

Nothing of the account changes by it: no limit but that of a real message, no circuit, no try of any mail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..accounts.unbuilt import refusal
from ..model.account import Account, AccountKind, Authentication, Verification
from ..model.clock import Clock
from ..model.envelope import Envelope
from ..net import pop3_login
from ..net.observer import Observer
from ..net.smtp_client import ConnectFailed, ContentSource, SmtpConnection, TransactionResult, connect
from ..net.smtp_sending import ConnectionLost
from ..net.stream import Resolver
from ..policy.classify import Stage as ReplyStage
from ..protocol.smtp.errors import LocalProtocolError
from ..protocol.smtp.transaction import MailTransaction
from ..transports.pop_before_smtp import PopBeforeSmtp
from .advice import Known, finding, of_failure, of_reply
from .order import House, Order
from .stages import Advice, Outcome, Recorder, Stage, Tell
from .token_stages import TokenStages

#: A certificate that expires sooner is warned of.
EXPIRES_SOON_DAYS = 30


@dataclass(slots=True)
class Result:
    """How a test went."""

    account: str
    passed: bool
    stages: list[Stage] = field(default_factory=list)
    transcript: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def show(self) -> dict[str, Any]:
        """As doors show it."""
        return {
            "account": self.account,
            "passed": self.passed,
            "stages": [stage.show() for stage in self.stages],
            "transcript": self.transcript,
            "notes": self.notes,
        }


async def run(order: Order, house: House, tell: Tell = lambda event: None) -> Result:
    """Go through the stages; each is told to `tell` when it begins and when it has ended."""
    recorder = Recorder(house.clock, tell)
    account = order.account
    refused = refusal(account)
    if account.kind is AccountKind.SANDBOX:
        recorder.skip("connect", "a sandbox connects to nobody: what is sent into it stays there")
    elif refused is not None:
        recorder.began("definition")
        recorder.current.worsen(Outcome.FAILED, refused[0], Advice(refused[0], refused[1], "not-built"))
        recorder.end()
    else:
        await _stages(order, house, recorder)
        if house.sender_domain is not None and order.sender:
            await house.sender_domain(recorder, order.sender)
    passed = not any(stage.outcome is Outcome.FAILED for stage in recorder.stages)
    result = Result(account.name, passed, recorder.stages, recorder.lines)
    if passed and order.needs_attention:
        result.notes.append(f"the account sends nothing until it is woken: postroom accounts wake {account.name}")
    if passed and not account.enabled and account.kind is not AccountKind.SANDBOX:
        result.notes.append(f"the account is off: postroom accounts edit {account.name} --enabled")
    return result


async def _stages(order: Order, house: House, recorder: Recorder) -> None:
    known = Known(order.account, house.hostname)
    if order.account.kind is AccountKind.GRAPH:
        from .graph_stages import GraphTest  # here: it loads what speaks HTTP

        await GraphTest(order, house, recorder, known).run()
    else:
        await _Test(order, house, recorder, known).run()


class _Test:
    """One test of an account that connects by SMTP."""

    def __init__(self, order: Order, house: House, recorder: Recorder, known: Known) -> None:
        self._order = order
        self._house = house
        self._recorder = recorder
        self._known = known
        self._tokens: TokenStages | None = None
        recorder.look_over = self._look_over

    async def run(self) -> None:
        """All stages, as far as they lead."""
        if self._order.account.authentication is Authentication.OAUTH2:
            self._tokens = TokenStages(
                self._order.account, self._recorder, self._known, self._house.tokens, self._house.clock
            )
            await self._tokens.metadata()
        hosts: Sequence[tuple[Account, Resolver]] = [(self._order.account, self._house.resolver)]
        if self._order.hosts is not None:
            hosts = await self._order.hosts(self._recorder)
        connection = None
        for account, resolver in hosts:
            connection = await self._open(account, resolver)
            if connection is not None:
                break
        if connection is None:
            return
        try:
            await self._envelope(connection)
            await self._message(connection)
        except (ConnectionLost, LocalProtocolError) as error:
            self._lost(error)
        finally:
            self._recorder.end()
            await connection.quit()

    async def _open(self, account: Account, resolver: Resolver) -> SmtpConnection | None:
        recorder, house = self._recorder, self._house
        self._known.port = account.port
        try:
            if account.authentication is Authentication.POP:
                await self._log_in_by_pop(account, resolver)
            connection = await connect(
                account,
                helo_name=house.helo_name,
                reply_limits=house.reply_limits,
                resolver=resolver,
                observer=recorder,
                tokens=self._tokens,
            )
        except ConnectFailed as error:
            await self._failed(error, account, resolver)
            return None
        recorder.end()
        if not connection.is_encrypted:
            recorder.began("encryption")
            recorder.current.worsen(Outcome.WARNING, "the connection is not encrypted", finding("in-clear"))
            recorder.end()
        return connection

    async def _log_in_by_pop(self, account: Account, resolver: Resolver) -> None:
        house = self._house
        log_in = partial(
            pop3_login.log_in, account, house.clock, reply_limits=house.reply_limits, resolver=resolver,
            observer=self._recorder,
        )  # fmt: skip
        opening = PopBeforeSmtp(account, house.clock, log_in)
        try:
            await opening.ready()
        finally:
            opening.close()
            self._recorder.stop_clock()

    async def _failed(self, error: ConnectFailed, account: Account, resolver: Resolver) -> None:
        recorder = self._recorder
        if not recorder.has_begun(error.stage):
            recorder.began(error.stage)
        recorder.stop_clock()
        if error.kind == "certificate" and error.stage == "tls":
            await self._look_at_certificate(account, resolver)
        recorder.current.worsen(Outcome.FAILED, error.reason, of_failure(error, self._known))
        recorder.end()

    async def _look_at_certificate(self, account: Account, resolver: Resolver) -> None:
        """Once more without the check, for the certificate that was refused: nothing is sent, and no login shown."""
        house = self._house
        looking = _CertificateSeen(house.clock)
        unchecked = replace(
            account, verification=Verification.OFF, authentication=Authentication.NONE, client_certificate="",
            client_key="",
        )  # fmt: skip
        try:
            connection = await connect(
                unchecked,
                helo_name=house.helo_name,
                reply_limits=house.reply_limits,
                resolver=resolver,
                observer=looking,
            )
            connection.leave()
        except ConnectFailed:
            pass
        if looking.facts:
            self._recorder.found(**looking.facts)
            shown = looking.facts.get("chain", [{}])[0]
            names = [name for name in shown.get("names", ()) if "*" not in name]
            self._known.certificate_name = names[0] if names else ""
            self._known.fingerprint = shown.get("sha256", "")

    def _look_over(self, stage: Stage) -> None:
        """What works and is not well."""
        if stage.name != "tls" or stage.outcome is not Outcome.PASSED:
            return
        if self._order.account.verification is Verification.OFF and self._order.hosts is None:
            stage.worsen(Outcome.WARNING, "the certificate was not checked", finding("not-verified", self._known))
        days = stage.facts.get("days_left")
        if isinstance(days, int) and 0 <= days < EXPIRES_SOON_DAYS:
            advice = finding("expires-soon", days=str(days))
            stage.worsen(Outcome.WARNING, f"the certificate expires in {days} days", advice)

    async def _envelope(self, connection: SmtpConnection) -> None:
        order, recorder = self._order, self._recorder
        if not order.sender:
            recorder.skip("sender", "no sender is known: name one with --from")
            return
        recorder.began("sender")
        prepared = MailTransaction(Envelope(order.sender, (order.recipient or order.sender,)), 0)
        prepared.prepare(connection.extensions, connection.machine.limits)
        if not prepared.lines:
            recorder.current.worsen(Outcome.FAILED, "the relay does not offer SMTPUTF8", finding("no-smtputf8"))
            return
        if await self._ask(connection, "sender", order.sender, prepared.lines[0], ReplyStage.MAIL):
            if order.recipient:
                await self._ask(connection, "recipient", order.recipient, prepared.lines[1], ReplyStage.RCPT)
            else:
                recorder.skip("recipient", "none was named: --to ADDRESS asks about one, and sends nothing")
        recorder.end()
        if connection.is_idle:
            await connection.ask(b"RSET")

    async def _ask(self, connection: SmtpConnection, name: str, address: str, line: str, stage: ReplyStage) -> bool:
        recorder = self._recorder
        if not recorder.has_begun(name):
            recorder.began(name)
        recorder.found(address=address)
        reply = await connection.ask(line.rstrip("\r\n").encode())
        recorder.found(reply=reply.text)
        if not reply.is_positive:
            recorder.current.worsen(Outcome.FAILED, reply.text, of_reply(stage, reply, self._known))
        return reply.is_positive

    async def _message(self, connection: SmtpConnection) -> None:
        message = await self._order.begun_message(self._recorder, is_ready=connection.is_idle)
        if message is None:
            return
        ended: asyncio.Future[TransactionResult] = asyncio.get_running_loop().create_future()
        connection.start(message.envelope, ContentSource(message.head, message.body), ended.set_result)
        self._sent(await ended, connection)

    def _sent(self, result: TransactionResult, connection: SmtpConnection) -> None:
        recorder = self._recorder
        before = len(recorder.lines)
        for line in connection.recorded.text(result, pipelined=connection.pipelining).split("\n")[before:]:
            recorder.said(line)
        told = [
            (ReplyStage.MAIL, result.mail),
            (ReplyStage.RCPT, result.rcpt[0]),
            (ReplyStage.DATA, result.data),
            (ReplyStage.CONTENT, result.final),
        ]
        for stage, reply in told:
            if reply is not None and reply.code >= 400:
                recorder.current.worsen(Outcome.FAILED, reply.text, of_reply(stage, reply, self._known))
                return
        if result.final is not None and result.is_delivered(0):
            recorder.found(reply=result.final.text)
            return
        advice = finding("message-broke-off")
        recorder.current.worsen(Outcome.FAILED, result.error or "it was not taken", advice)

    def _lost(self, error: ConnectionLost | LocalProtocolError) -> None:
        recorder = self._recorder
        if not recorder.is_open:
            recorder.began("reset")
        if isinstance(error, LocalProtocolError):
            advice = finding("bad-address")
            recorder.current.worsen(Outcome.FAILED, str(error), advice)
            return
        if error.reply is not None:
            stage = {"recipient": ReplyStage.RCPT}.get(recorder.current.name, ReplyStage.MAIL)
            recorder.current.worsen(Outcome.FAILED, error.reason, of_reply(stage, error.reply, self._known))
            return
        failed = ConnectFailed("auth", "network" if error.kind in ("timeout", "network") else error.kind, error.reason)
        recorder.current.worsen(Outcome.FAILED, error.reason, of_failure(failed, self._known))


class _CertificateSeen(Observer):
    """Looks at nothing but what TLS shows."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.facts: dict[str, Any] = {}

    def secured(self, tls: Any) -> None:
        """See `Observer.secured`."""
        from .certificates import tls_facts

        self.facts = tls_facts(tls, self._clock.now())
