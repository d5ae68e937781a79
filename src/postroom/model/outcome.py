"""What became of one recipient in one attempt (DESIGN section 7)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from .reply import Reply


class Scope(StrEnum):
    """What a failure is about; it decides who waits (SPEC section 2.8)."""

    MESSAGE = "message"
    SENDER = "sender"  # this sender on this account
    ACCOUNT = "account"


class Remedy(StrEnum):
    """What an account does about a failure of its own."""

    SLEEP = "sleep"  # by its schedule, or for the time named
    STOP = "stop"  # the cause does not pass by itself: it needs attention
    SLOWER = "slower"  # it goes on, with a pause between two messages
    FEWER = "fewer"  # it goes on, over fewer connections


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The part that all outcomes share: where it was said, and in which words.

    `reports`: the other side took over the duty to report success (it offers DSN, RFC 3461 section 5.2.1). `note` is
    what people should know of a success, such as what the copy that left lacks.
    """

    reply: Reply | None = None
    remote_host: str = ""
    reports: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered(Outcome):
    """The relay has taken responsibility (a 2yz to the end of data)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured(Outcome):
    """A sandbox kept it; nothing was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSent(Outcome):
    """Nothing was asked or written for this recipient: due again at once, nobody is to blame; `reason` says why."""

    reason: str = "the connection ended before the content was sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure(Outcome):
    """A refusal or an accident.

    `status` is an enhanced status code (RFC 3463); `reason` one line for people; `advice` what to do about it;
    `transcript` what was said, without content and secrets.
    """

    status: str
    reason: str
    advice: str = ""
    scope: Scope = Scope.MESSAGE
    transcript: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred(Failure):
    """Try again: later by the retry schedule, or after `retry_after` when the other side or a rule named a time.

    `remedy` (scope ACCOUNT) is what the account does about it.
    """

    retry_after: timedelta | None = None
    remedy: Remedy = Remedy.SLEEP


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounced(Failure):
    """Refused for good; `nobody`: the other side says that the recipient does not exist."""

    nobody: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown(Failure):
    """The end of data was written and no reply came: it may have arrived."""
