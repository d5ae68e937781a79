"""What a transaction on a connection brings along: its content, and who is told of its beginning and its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from ..model.content import StagedBody
from ..model.envelope import Envelope
from ..model.reply import Reply
from ..protocol.smtp.transaction import MailTransaction

#: A transaction that has ended.
TransactionResult = MailTransaction


@dataclass(slots=True, eq=False)
class ContentSource:
    """Content to send: `head` with its empty line; `body` in memory, or staged and read by `chunks` (cut anywhere)."""

    head: bytes
    body: bytes | StagedBody
    chunks: Callable[[StagedBody], AsyncIterator[bytes]] | None = None

    @property
    def size_bytes(self) -> int:
        """Octets of head and body together."""
        return len(self.head) + (len(self.body) if isinstance(self.body, bytes) else self.body.size_bytes)


class Sending(MailTransaction):
    """A transaction with what only the driver knows of it."""

    __slots__ = ("_mail_answered", "content", "done")

    def __init__(
        self,
        envelope: Envelope,
        content: ContentSource,
        done: Callable[[TransactionResult], None],
        mail_answered: Callable[[], None] | None,
    ) -> None:
        super().__init__(envelope, content.size_bytes)
        self.content = content
        self.done = done
        self._mail_answered = mail_answered
        self.is_watched = mail_answered is not None

    def tell_mail_answered(self) -> None:
        """Tell who watches."""
        if self._mail_answered is not None:
            self._mail_answered()


class ConnectionLost(Exception):
    """The connection broke while a reply was awaited; `reply` is the 421 that ended it, if one did."""

    def __init__(self, reason: str, kind: str, reply: Reply | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.reply = reply


def handed_back(_: TransactionResult) -> None:
    """Stands for `Sending.done` of a transaction whose result was handed back."""
    raise AssertionError("a transaction's result is handed back once")
