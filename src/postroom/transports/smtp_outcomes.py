"""What becomes of each recipient of an SMTP transaction, and what a failure to connect means (`policy.classify`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from ..model.account import Account, Authentication
from ..model.outcome import Bounced, Deferred, Delivered, Failure, NotSent, Outcome, Remedy, Scope, Unknown
from ..model.reply import Reply
from ..net.smtp_client import ConnectFailed, TransactionResult
from ..policy.classify import Action, Stage, classify, classify_failure
from ..protocol.smtp.transaction import LeftOut
from . import AccountUnavailable


def outcomes(
    result: TransactionResult,
    remote_host: str,
    transcript: Callable[[TransactionResult], str],
    *,
    reports: bool = False,
    may_start_tls: bool = False,
) -> Sequence[Outcome]:
    """One outcome per recipient of the transaction that `result` tells of; `transcript` is asked where one failed.

    `reports`: the relay was asked to report success, and does (see `Outcome.reports`). `may_start_tls`: see `learned`.
    """
    final = result.final
    if (
        final is not None
        and final.is_positive
        and all(reply is not None and reply.is_positive for reply in result.rcpt)
    ):
        return [Delivered(reply=final, remote_host=remote_host, reports=reports)] * len(result.rcpt)
    lesson = learned(result, may_start_tls=may_start_tls)  # once: a relay may refuse a thousand recipients
    found = [_outcome(result, n, remote_host, reports, lesson) for n in range(len(result.rcpt))]
    if not any(isinstance(outcome, Failure) for outcome in found):
        return found
    said = transcript(result)
    return [dataclasses.replace(one, transcript=said) if isinstance(one, Failure) else one for one in found]


def _outcome(result: TransactionResult, n: int, remote_host: str, reports: bool, lesson: Lesson | None) -> Outcome:
    rcpt, final = result.rcpt[n], result.final
    if result.not_started:
        return NotSent(remote_host=remote_host)
    if n in result.left_out:
        return _not_asked(result.left_out[n], remote_host)
    if result.mail is not None and not result.mail.is_positive:
        return _refused(lesson, Stage.MAIL, result.mail, remote_host)
    if rcpt is not None and not rcpt.is_positive:
        return _refused(lesson, Stage.RCPT, rcpt, remote_host)
    if final is not None:
        if result.is_delivered(n):
            return Delivered(reply=final, remote_host=remote_host, reports=reports)
        if not final.is_positive:
            return _refused(lesson, Stage.CONTENT, final, remote_host)
    elif result.content_written:
        reason = f"the end of data was written and no reply came: {result.error}"
        return Unknown(status="4.4.2", reason=reason, remote_host=remote_host)
    elif result.data is not None and not result.data.is_intermediate:
        return _refused(lesson, Stage.DATA, result.data, remote_host)
    return _broken(result, n, remote_host)


def _refused(lesson: Lesson | None, stage: Stage, reply: Reply, remote_host: str) -> Outcome:
    """The outcome of a refusal: none, where it goes again at once in another way (see `Lesson`)."""
    if lesson is not None and (stage, reply) in lesson.refusals:
        return NotSent(reason=f"{reply.text}: {lesson.then}", reply=reply, remote_host=remote_host)
    return refused(stage, reply, remote_host)


@dataclasses.dataclass(frozen=True, slots=True)
class Lesson:
    """What a transaction taught about the relay, and the refusals that need not be: what they refused goes at once.

    `most_recipients` (0: nothing was learned of it) in one transaction; `plain`: without parameters; `tls`: STARTTLS is
    sent where it is not offered.
    """

    refusals: frozenset[tuple[Stage, Reply]]
    then: str
    most_recipients: int = 0
    plain: bool = False
    tls: bool = False


def learned(result: TransactionResult, *, may_start_tls: bool = False) -> Lesson | None:
    """What `result` teaches, if anything: too many recipients where others were taken, parameters refused, or TLS
    demanded. `may_start_tls`: it went over a connection that was not encrypted, and may be (`SmtpConnection`)."""
    told = [(Stage.RCPT, reply) for reply in result.rcpt if reply is not None and not reply.is_positive]
    if result.mail is not None and not result.mail.is_positive:
        told = [(Stage.MAIL, result.mail)]
    taken = sum(reply is not None and reply.is_positive for reply in result.rcpt)
    whole = [(Stage.DATA, result.data), (Stage.CONTENT, result.final)]
    told += [(stage, reply) for stage, reply in whole if reply is not None and reply.code >= 400]
    encrypted, plain, apart, most = [], [], [], 0
    for stage, reply in dict.fromkeys(told):
        verdict = classify(stage, reply)
        action = verdict.action
        if verdict.tls and may_start_tls:
            encrypted.append((stage, reply))
        elif action is Action.PLAIN and _has_parameters(result, stage):
            plain.append((stage, reply))
        elif action is Action.SPLIT and taken > (stage is not Stage.RCPT):
            # Refused as a whole: half of them may be taken.
            most = taken if stage is Stage.RCPT else taken // 2
            apart.append((stage, reply))
    if encrypted:
        return Lesson(frozenset(encrypted), "it goes again after STARTTLS", tls=True)
    if plain:
        return Lesson(frozenset(plain), "it goes without parameters", plain=True)
    return Lesson(frozenset(apart), "the rest goes with the next transaction", most) if apart else None


def _has_parameters(result: TransactionResult, stage: Stage) -> bool:
    """Whether parameters were given that may be left out: SMTPUTF8 may not (RFC 6531 section 3.5)."""
    lines = result.lines[:1] if stage is Stage.MAIL else result.lines[1:-1]
    return any(line.rpartition(">")[2].strip() not in ("", "SMTPUTF8") for line in lines)


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


_STAGES = frozenset(Stage)

#: Of connections that could not be had (RFC 3463 section 3.8).
_STATUSES = {"certificate": "4.7.5"}
_POP_STATUSES = _STATUSES | {"auth": "4.7.0", "no-timestamp": "4.7.0", "clear-password": "4.7.0"}

_REMEDIES = {
    Action.FEWER: Remedy.FEWER,
    Action.SLOWER: Remedy.SLOWER,
    Action.SLEEP: Remedy.SLEEP,
    Action.STOP: Remedy.STOP,
}


def refused(stage: Stage, reply: Reply, remote_host: str) -> Outcome:
    """The outcome of a refusal, by the rules."""
    verdict = classify(stage, reply)
    action, status = verdict.action, verdict.status
    if action is Action.BOUNCE or (action is Action.PLAIN and reply.is_permanent and stage is Stage.RCPT):
        return Bounced(
            status=status, reason=reply.text, advice=verdict.advice, scope=verdict.scope, reply=reply,
            remote_host=remote_host, nobody=verdict.nobody,
        )  # fmt: skip
    scope = verdict.scope
    if action is Action.PLAIN and stage is Stage.MAIL:
        scope = Scope.ACCOUNT  # it was refused without parameters too: no rule knows why
    return Deferred(
        status=status, reason=reply.text, advice=verdict.advice, scope=scope, reply=reply, remote_host=remote_host,
        retry_after=verdict.wait, remedy=_REMEDIES.get(action, Remedy.SLEEP),
    )  # fmt: skip


def _stage(account: Account, error: ConnectFailed) -> Stage:
    if error.stage == Stage.AUTH and account.authentication is Authentication.OAUTH2:
        return Stage.TOKEN_LOGIN
    return Stage(error.stage) if error.stage in _STAGES else Stage.EHLO


def explain_connect_failure(account: Account, error: Exception) -> AccountUnavailable:
    """What a failure to connect means for `account`."""
    if not isinstance(error, ConnectFailed):
        return AccountUnavailable(Deferred(status="4.4.1", reason=str(error) or repr(error), scope=Scope.ACCOUNT))
    if error.reply is not None and not error.reply.is_positive:
        verdict = classify(_stage(account, error), error.reply)
        return AccountUnavailable(
            Deferred(
                status=verdict.status,
                reason=f"{error.stage}: {error.reply.text}",
                advice=verdict.advice,
                scope=Scope.ACCOUNT,
                reply=error.reply,
                retry_after=verdict.wait,
                remedy=_REMEDIES.get(verdict.action, Remedy.SLEEP),
                transcript=error.transcript,
            )
        )
    host, port = (account.pop_host, account.pop.port) if error.stage == "pop" else (account.host, account.port)
    rule = classify_failure(error.kind, error.stage, error.reason, host=host, port=port)
    return AccountUnavailable(
        Deferred(
            status=(_POP_STATUSES if error.stage == "pop" else _STATUSES).get(error.kind, "4.4.1"),
            reason=f"{error.stage}: {error.reason}",
            advice=rule.advice if rule is not None else "",
            scope=Scope.ACCOUNT,
            remedy=_REMEDIES[rule.action] if rule is not None else Remedy.SLEEP,
            transcript=error.transcript,
        )
    )
