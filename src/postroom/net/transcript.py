"""What was said on a connection, for people: bounded, without contents and secrets (SPEC section 9)."""

from __future__ import annotations

import base64
import re
from collections import deque
from collections.abc import Callable, Iterator

from ..model.reply import Reply
from ..protocol.smtp.client_states import Step
from ..protocol.smtp.transaction import MailTransaction

MAX_TRANSCRIPT_CHARACTERS = 16 * 1024
HIDDEN = "[hidden]"

#: Kept of one line, and of the lines of one reply.
_LINE_CHARACTERS = 1000
_REPLY_LINES = 20

#: What is shorter is hidden where it stands as we sent it, but not looked for in what the server says.
_SECRET_CHARACTERS = 4

#: So many characters of a response are taken for the beginning of its echo, which may be cut short.
_ECHO_CHARACTERS = 12


class Transcript:
    """The dialogue before the first transaction; transactions keep their own words until somebody asks for them."""

    def __init__(self) -> None:
        self._said = _Kept()
        self._secrets: dict[str, None] = {}  # patterns
        self._secret: re.Pattern[str] | None = None
        self.told: Callable[[str], None] | None = None  # each line, as it is said

    def hide(self, secret: str) -> None:
        """Let `secret` stand nowhere, neither as it is nor in base64, whoever says it."""
        self._look_for(secret, exact=True)
        self._look_for(base64.b64encode(secret.encode()).decode(), exact=True)

    def sent(self, line: bytes) -> None:
        """A command; of AUTH only the mechanism is kept."""
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text.upper().startswith("AUTH "):
            words = text.split(" ")
            for word in words[2:]:
                self._look_for(word)
            text = " ".join([*words[:2], HIDDEN])
        self._add(f"C: {text}")

    def sent_secret(self, line: bytes) -> None:
        """An answer to a challenge."""
        self._look_for(line.decode("utf-8", "replace").rstrip("\r\n"))
        self._add(f"C: {HIDDEN}")

    def sent_but_for(self, shown: str, secret: str) -> None:
        """A command of another protocol that ends with a secret: `shown` is what stands before it."""
        self._look_for(secret, exact=True)
        self._add(f"C: {shown} {HIDDEN}")

    def received(self, reply: Reply) -> None:
        """A whole reply."""
        for line in _reply_lines(reply):
            self._add(line)

    def heard(self, line: str) -> None:
        """A line of a server of another protocol."""
        self._add(f"S: {line}")

    def note(self, text: str) -> None:
        """What neither side said: that TLS was started, or what went wrong."""
        self._add(f"-- {text}")

    def without_secrets(self, text: str) -> str:
        """`text` with every secret of this connection hidden: servers like to repeat what they did not understand."""
        if self._secret is None and self._secrets:
            self._secret = re.compile("|".join(sorted(self._secrets, key=len, reverse=True)))
        return text if self._secret is None else self._secret.sub(HIDDEN, text)

    def clean(self, reply: Reply) -> Reply:
        """`reply`, with every secret in it hidden."""
        lines = tuple(map(self.without_secrets, reply.lines))
        return reply if lines == reply.lines else Reply(reply.code, lines, reply.enhanced, reply.command)

    def clean_transaction(self, transaction: MailTransaction) -> None:
        """As `clean`, all replies to a transaction that has ended."""
        if not self._secrets:
            return
        clean = self.clean
        transaction.rcpt[:] = [reply and clean(reply) for reply in transaction.rcpt]
        transaction.mail = transaction.mail and clean(transaction.mail)
        transaction.data = transaction.data and clean(transaction.data)
        transaction.final = transaction.final and clean(transaction.final)

    def text(self, transaction: MailTransaction | None = None, *, pipelined: bool = False) -> str:
        """The dialogue, with that of `transaction` behind it; of one that is too long, the beginning and the end."""
        kept = _Kept()
        for line in self._said.lines():
            kept.add(line)
        for line in _transaction_lines(transaction, pipelined) if transaction is not None else ():
            kept.add(line)
        return self.without_secrets("\n".join(kept.lines()))

    def _add(self, line: str) -> None:
        self._said.add(line)
        if self.told is not None:
            self.told(self.without_secrets(line))

    def _look_for(self, secret: str, *, exact: bool = False) -> None:
        if len(secret) < _SECRET_CHARACTERS:
            return
        pattern = re.escape(secret if exact else secret[:_ECHO_CHARACTERS])
        self._secrets[pattern if exact else pattern + "[A-Za-z0-9+/=]*"] = None
        self._secret = None


class _Kept:
    """Lines, of which the middle is left out when they are too many."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._last: deque[str] = deque()
        self._room = self._rest = (MAX_TRANSCRIPT_CHARACTERS - 100) // 2
        self._left_out = 0

    def add(self, line: str) -> None:
        """One more line."""
        line = line[:_LINE_CHARACTERS]
        if not self._last and len(line) < self._room:
            self._first.append(line)
            self._room -= len(line) + 1
            return
        self._last.append(line)
        self._rest -= len(line) + 1
        while self._rest < 0:
            self._rest += len(self._last.popleft()) + 1
            self._left_out += 1

    def lines(self) -> list[str]:
        """What was kept."""
        cut = [f"-- {self._left_out} lines left out"] if self._left_out else []
        return [*self._first, *cut, *self._last]


def _transaction_lines(transaction: MailTransaction, pipelined: bool) -> Iterator[str]:
    """Command by command: with PIPELINING they went out together, but are easier to read each with its reply."""
    asked = transaction.asked
    rcpt = transaction.rcpt if asked is None else [transaction.rcpt[n] for n in asked]
    if transaction.left_out:
        yield f"-- {len(transaction.left_out)} of {len(transaction.rcpt)} recipients were left out"
    # Whether the first command without a reply was sent: not in what had not begun, or ended before it.
    was_sent = transaction.step is not Step.WAITING and (pipelined or transaction.step is not Step.DONE)
    for command, reply in zip(transaction.lines, [transaction.mail, *rcpt, transaction.data], strict=False):
        if reply is None and not was_sent:
            break
        yield f"C: {command.rstrip()}"
        if reply is not None:
            yield from _reply_lines(reply)
        was_sent = was_sent and (pipelined or reply is not None)
    if transaction.content_written:
        yield f"C: [{transaction.size_bytes} octets of content]"
        yield "C: ."
    elif transaction.final is not None:
        yield "C: [a part of the content]"
    if transaction.final is not None:
        yield from _reply_lines(transaction.final)
    if transaction.error:
        yield f"-- {transaction.error}"


def _reply_lines(reply: Reply) -> list[str]:
    status = f"{reply.enhanced} " if reply.enhanced else ""
    texts = reply.lines[:_REPLY_LINES] or ("",)
    last = len(reply.lines) - 1
    return [f"S: {reply.code}{'-' if n < last else ' '}{status}{text}".rstrip() for n, text in enumerate(texts)]
