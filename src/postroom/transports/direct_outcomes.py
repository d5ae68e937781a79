"""What replies and failures mean where mail goes to a domain's own hosts: nobody has an account there (SPEC 2.10).

They are about the destination, so that its deliveries alone are tried again by the retry schedule.
"""

from __future__ import annotations

import dataclasses

from ..model.outcome import Bounced, Deferred, Outcome, Scope
from ..net.stream import ConnectFailed
from ..policy.classify import Stage, classify
from ..protocol.smtp.transaction import END_OF_DATA_COMMAND
from .mail_route import Host

#: What a refusal for good ends, whatever a rule would make of it at a relay.
_ABOUT_THE_MESSAGE = frozenset({"RCPT", "DATA", END_OF_DATA_COMMAND})

_STAGES = frozenset(Stage)

_SILENT = "if no domain's hosts are reached, this network lets nothing out to port 25: then send through a relay"


def of_destination(outcome: Outcome) -> Outcome:
    """`outcome` of a transaction, with what a rule blames on the account put on the message or its destination."""
    if not (isinstance(outcome, Deferred) and outcome.scope is Scope.ACCOUNT):
        return outcome
    reply = outcome.reply
    if reply is not None and reply.is_permanent and reply.command in _ABOUT_THE_MESSAGE:
        status = outcome.status if outcome.status.startswith("5") else "5.0.0"
        return Bounced(
            status=status, reason=outcome.reason, reply=reply, remote_host=outcome.remote_host,
            transcript=outcome.transcript,
        )  # fmt: skip
    return Deferred(
        status=f"4{outcome.status[1:]}", reason=outcome.reason, reply=reply, remote_host=outcome.remote_host,
        transcript=outcome.transcript, retry_after=outcome.retry_after,
    )  # fmt: skip


def no_connection(host: Host, error: ConnectFailed, *, enforced: bool) -> Deferred:
    """The outcome where no connection to `host` could be had."""
    reason = f"{host.name}: {error.stage}: {error.reason}"
    if enforced and error.kind in ("tls", "certificate"):
        reason += " (its domain demands verified TLS by MTA-STS)"
    failed = Deferred(status="4.4.1", reason=reason, transcript=error.transcript)
    if error.kind == "local-address":
        advice = "give the account's local_address one of this machine's (`ip address` lists them), or none"
        return dataclasses.replace(failed, scope=Scope.ACCOUNT, advice=advice)
    if error.reply is not None and not error.reply.is_positive:
        stage = Stage(error.stage) if error.stage in _STAGES else Stage.EHLO
        verdict = classify(stage, error.reply)
        return dataclasses.replace(
            failed, status=f"4{verdict.status[1:]}", reply=error.reply, retry_after=verdict.wait, remote_host=host.name
        )
    if error.kind in ("tls", "certificate"):
        return dataclasses.replace(failed, status="4.7.5")
    silent = error.stage == "connect" and error.reply is None
    return dataclasses.replace(failed, advice=_SILENT) if silent else failed
