"""What to test, and what a test has from its gateway (SPEC section 7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..model.account import Account
from ..model.clock import Clock
from ..model.envelope import Envelope
from ..net.stream import Resolver, resolve
from ..net.token_login import TokenSource
from ..oauth.service import Told
from ..protocol.smtp.reply_reader import DEFAULT_LIMITS, ReplyLimits
from .stages import Outcome, Recorder

if TYPE_CHECKING:
    from ..transports.graph import Places


@dataclass(frozen=True, slots=True)
class RealMessage:
    """A message that is sent for good: with its envelope as it leaves, and who gets it instead where that is so."""

    envelope: Envelope
    head: bytes
    body: bytes
    redirected_to: str = ""


class NoMessage(Exception):
    """None may leave any more, and why."""


class SenderDomain(Protocol):
    """What is looked at besides the connection: SPF, DKIM and DMARC of the sender's domain."""

    async def __call__(self, recorder: Recorder, sender: str) -> None:
        """Add its stages."""


class Tokens(TokenSource, Protocol):
    """Who gives access tokens, each one new, and can say what was told of the last one."""

    def told(self, token: str) -> Told:
        """See `oauth.service.TrialTokens`."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to test. `sender` and `recipient` are addresses, "" where none is known; `message` makes the one to send, or
    raises `NoMessage`. `mailbox` is the one that an account of kind graph uses, "" where there is none."""

    account: Account
    sender: str = ""
    recipient: str = ""
    message: Callable[[], Awaitable[RealMessage]] | None = None
    no_message: str = ""  # why none may be sent, though one was asked for
    needs_attention: bool = False
    hosts: Callable[[Recorder], Awaitable[Sequence[tuple[Account, Resolver]]]] | None = None  # of direct delivery
    mailbox: str = ""

    async def begun_message(self, recorder: Recorder, *, is_ready: bool = True) -> RealMessage | None:
        """The message to send now, its stage begun; None where there is none. `is_ready`: the way is clear."""
        if self.no_message:
            recorder.skip("message", self.no_message)
        if self.message is None:
            return None
        if any(stage.outcome is Outcome.FAILED for stage in recorder.stages) or not is_ready:
            recorder.skip("message", "none was sent: a stage before it failed")
            return None
        try:
            message = await self.message()
        except NoMessage as reason:
            recorder.skip("message", str(reason))
            return None
        recorder.began("message")
        recorder.found(sender=message.envelope.reverse_path, recipient=message.envelope.recipients[0])
        if message.redirected_to:
            recorder.current.worsen(Outcome.PASSED, f"the staging guard sends it to {message.redirected_to}")
        return message


@dataclass(frozen=True, slots=True)
class House:
    """What a test has from its gateway. `places` are the requests that Graph takes at a time, by `graph.place_of`."""

    clock: Clock
    hostname: str
    reply_limits: ReplyLimits = DEFAULT_LIMITS
    resolver: Resolver = resolve
    sender_domain: SenderDomain | None = None
    tokens: Tokens | None = None
    places: Callable[[str], Places] | None = None

    @property
    def helo_name(self) -> str:
        """What EHLO says where the account does not."""
        return self.hostname if "." in self.hostname else ""
