"""Holds what an application sends again and again: a program that runs in circles (SPEC section 4).

Counted by a keyed hash of recipient and body, in the transaction of the message, so that a restart forgets nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from ..mime.body_digest import body_digest
from ..model.application import RepeatGuard
from ..model.quantity import format_duration
from ..model.queue import NewMessage, RepeatCheck
from ..policy.limits import Counted, Span

#: A keyed hash of 16 octets.
Digest = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Watched:
    """A guard that may be holding what comes, and the time by the clock of limits."""

    application_id: int
    application: str
    guard: RepeatGuard
    now: int


def check_of(guard: RepeatGuard, message: NewMessage, digest: Digest, now: int) -> RepeatCheck | None:
    """What the store is to count and compare, `now` by the clock of limits; None where the guard is off."""
    if guard.count is None:
        return None
    body = body_digest(message.content)
    seconds = -(-guard.within // timedelta(seconds=1))
    span = Span(Counted.MESSAGES, seconds)
    bucket = span.bucket(now)
    return RepeatCheck(
        digests=tuple([digest(body + one.recipient.casefold().encode()) for one in message.deliveries]),
        most=guard.count,
        now=now,
        bucket=bucket,
        ends=span.ends(bucket),
        reason=(
            f"the repeat guard of application {message.application!r} holds it: number {guard.count} or more with the"
            f" same recipient and body within {format_duration(guard.within)}"
        ),
    )
