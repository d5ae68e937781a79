"""The SMTP transport: transactions over pooled connections, replies turned into outcomes by `policy.classify`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from ..model.account import Account
from ..model.clock import Clock
from ..model.outcome import Bounced, Deferred, Delivered, Failure, NotSent, Outcome, Scope, Unknown
from ..model.reply import Reply
from ..net.smtp_client import ConnectFailed, ContentSource, SmtpConnection, TransactionResult, connect
from ..pending import Pending
from ..policy.classify import Stage, classify
from ..protocol.smtp.reply_reader import DEFAULT_LIMITS, ReplyLimits
from ..protocol.smtp.transaction import LeftOut
from . import AccountUnavailable, ChunkReader, Slot, Transaction
from .pool import ConnectionBudget, ConnectionPool, Link


class SmtpTransport:
    """The transport of an account of kind smtp."""

    def __init__(
        self,
        account: Account,
        *,
        clock: Clock,
        budget: ConnectionBudget,
        helo_name: str,
        chunks: ChunkReader,
        reply_limits: ReplyLimits = DEFAULT_LIMITS,
    ) -> None:
        self._account = account
        self._helo_name = account.helo_name or helo_name
        self._chunks = chunks
        self._reply_limits = reply_limits
        self._pool = ConnectionPool(
            account, clock, budget, connect=self._connect, start=self._start, explain=explain_connect_failure
        )

    async def _connect(self) -> SmtpConnection:
        return await connect(self._account, helo_name=self._helo_name, reply_limits=self._reply_limits)

    def _start(
        self, connection: SmtpConnection, transaction: Transaction, done: Callable[[TransactionResult], None]
    ) -> None:
        connection.start(transaction.envelope, ContentSource(transaction.head, transaction.body, self._chunks), done)

    async def reserve(self) -> Slot:
        """See `Transport.reserve`."""
        return SmtpSlot(await self._pool.reserve())

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._pool.close()


class SmtpSlot:
    """One transaction's place on a link."""

    __slots__ = ("_link", "_sent")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._sent = False

    def deliver(self, transaction: Transaction) -> Pending[Sequence[Outcome]]:
        """See `Slot.deliver`."""
        told: Pending[Sequence[Outcome]] = Pending()

        def ended(sent: Pending[TransactionResult | None]) -> None:
            result = sent.result()
            if result is None:
                told.set_result([NotSent(remote_host=self._link.remote_host)] * len(transaction.envelope.recipients))
                return
            self._sent = True
            try:
                connection = self._link.connection
                reports = result.envelope.dsn is not None and "DSN" in connection.extensions
                found = outcomes(result, self._link.remote_host, connection.transcript, reports=reports)
            except Exception as error:
                told.set_exception(error)
            else:
                told.set_result(found)

        self._link.send(transaction).add_done_callback(ended)
        return told

    def settle(self) -> None:
        """See `Slot.settle`."""
        self._link.settle()

    def durable(self) -> None:
        """See `Slot.durable`."""
        if self._sent:
            self._link.durable()

    def cancel(self) -> None:
        """See `Slot.cancel`."""
        self._link.cancel()


def outcomes(
    result: TransactionResult,
    remote_host: str,
    transcript: Callable[[TransactionResult], str],
    *,
    reports: bool = False,
) -> Sequence[Outcome]:
    """One outcome per recipient of the transaction that `result` tells of; `transcript` is asked where one failed.

    `reports`: the relay was asked to report success, and does (see `Outcome.reports`).
    """
    final = result.final
    if (
        final is not None
        and final.is_positive
        and all(reply is not None and reply.is_positive for reply in result.rcpt)
    ):
        return [Delivered(reply=final, remote_host=remote_host, reports=reports)] * len(result.rcpt)
    found = [_outcome(result, n, remote_host, reports) for n in range(len(result.rcpt))]
    if not any(isinstance(outcome, Failure) for outcome in found):
        return found
    said = transcript(result)
    return [dataclasses.replace(one, transcript=said) if isinstance(one, Failure) else one for one in found]


def _outcome(result: TransactionResult, n: int, remote_host: str, reports: bool) -> Outcome:
    rcpt, final = result.rcpt[n], result.final
    if result.not_started:
        return NotSent(remote_host=remote_host)
    if n in result.left_out:
        return _not_asked(result.left_out[n], remote_host)
    if result.mail is not None and not result.mail.is_positive:
        return refused(Stage.MAIL, result.mail, remote_host)
    if rcpt is not None and not rcpt.is_positive:
        return refused(Stage.RCPT, rcpt, remote_host)
    if final is not None:
        if result.is_delivered(n):
            return Delivered(reply=final, remote_host=remote_host, reports=reports)
        if not final.is_positive:
            return refused(Stage.CONTENT, final, remote_host)
    elif result.content_written:
        reason = f"the end of data was written and no reply came: {result.error}"
        return Unknown(status="4.4.2", reason=reason, remote_host=remote_host)
    elif result.data is not None and not result.data.is_intermediate:
        return refused(Stage.DATA, result.data, remote_host)
    return _broken(result, n, remote_host)


def _broken(result: TransactionResult, n: int, remote_host: str) -> Outcome:
    """The outcome of a transaction that ended before its content was out, with no refusal to blame."""
    if result.error_kind == "aborted":
        return NotSent(remote_host=remote_host)  # we left: a shutdown is nobody's try
    if result.error_kind == "local":
        return Deferred(status="4.3.0", reason=result.error, remote_host=remote_host)
    # A relay that drops or breaks the connection on this message's own envelope may do so each time: it is a try.
    scope = Scope.MESSAGE if result.error_kind in ("network", "protocol") else Scope.ACCOUNT
    return Deferred(status="4.4.2", reason=result.error, scope=scope, remote_host=remote_host)


#: What of a message needs SMTPUTF8, with the status of RFC 6531 section 3.5 for a relay that does not offer it.
_NEEDS_UTF8 = {
    LeftOut.REVERSE_PATH: ("5.6.7", "the sender's address"),
    LeftOut.ADDRESS: ("5.6.7", "the recipient's address"),
    LeftOut.HEADER: ("5.6.9", "the message's header"),
}


def _not_asked(why: LeftOut, remote_host: str) -> Outcome:
    if why is LeftOut.LIMIT:
        reason = "the relay takes no more recipients in one transaction; this one goes with the next"
        return NotSent(reason=reason, remote_host=remote_host)
    status, what = _NEEDS_UTF8[why]
    return Bounced(
        status=status,
        reason=f"{what} is not ASCII, and the relay does not offer SMTPUTF8",
        advice="send it through a relay that offers SMTPUTF8, or in ASCII alone",
        remote_host=remote_host,
    )


def refused(stage: Stage, reply: Reply, remote_host: str) -> Outcome:
    """The outcome of a refusal, by the rules."""
    verdict = classify(stage, reply)
    if verdict.bounce:
        return Bounced(
            status=verdict.status, reason=reply.text, advice=verdict.advice, scope=verdict.scope, reply=reply,
            remote_host=remote_host,
        )  # fmt: skip
    return Deferred(
        status=verdict.status, reason=reply.text, advice=verdict.advice, scope=verdict.scope, reply=reply,
        remote_host=remote_host, retry_after=verdict.sleep, stop=verdict.stop,
    )  # fmt: skip


#: What to do about a failure to connect that no reply explains, by its kind.
_ADVICE = {
    "certificate": "name the relay as its certificate does, or give the account the CA bundle that signed it",
    "no-mechanism": "choose no authentication if the relay needs no login",
    "clear-password": "use security starttls or tls; `allow clear password` sends it unprotected",
    "tls": "check the port: 465 wants security tls, 587 and 25 want starttls",
}

#: Kinds that do not pass by themselves: the account needs attention.
_NEEDS_ATTENTION = frozenset({"certificate", "no-mechanism", "clear-password"})


def explain_connect_failure(error: Exception) -> AccountUnavailable:
    """What a failure to connect means for the account."""
    if not isinstance(error, ConnectFailed):
        return AccountUnavailable(Deferred(status="4.4.1", reason=str(error) or repr(error), scope=Scope.ACCOUNT))
    if error.reply is not None and not error.reply.is_positive:
        stage = Stage(error.stage) if error.stage in Stage.__members__.values() else Stage.EHLO
        verdict = classify(stage, error.reply)
        return AccountUnavailable(
            Deferred(
                status=verdict.status,
                reason=f"{error.stage}: {error.reply.text}",
                advice=verdict.advice,
                scope=Scope.ACCOUNT,
                reply=error.reply,
                retry_after=verdict.sleep,
                stop=verdict.stop,
                transcript=error.transcript,
            )
        )
    return AccountUnavailable(
        Deferred(
            status="4.7.5" if error.kind == "certificate" else "4.4.1",
            reason=f"{error.stage}: {error.reason}",
            advice=_ADVICE.get(error.kind, ""),
            scope=Scope.ACCOUNT,
            stop=error.kind in _NEEDS_ATTENTION,
            transcript=error.transcript,
        )
    )
