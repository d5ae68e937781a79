"""What was said on a connection, for people: bounded, without contents and secrets (SPEC section 9)."""

from __future__ import annotations

from ..model.reply import Reply
from ..protocol.smtp.transaction import MailTransaction

MAX_TRANSCRIPT_CHARACTERS = 16 * 1024
HIDDEN = "[hidden]"


class Transcript:
    """The dialogue before the first transaction; transactions keep their own words until somebody asks for them."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._characters = 0

    def sent(self, line: bytes) -> None:
        """A command; of AUTH only the mechanism is kept."""
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text.upper().startswith("AUTH "):
            text = " ".join([*text.split(" ")[:2], HIDDEN])
        self._add(f"C: {text}")

    def sent_secret(self) -> None:
        """An answer to a challenge."""
        self._add(f"C: {HIDDEN}")

    def received(self, reply: Reply) -> None:
        """A whole reply."""
        for line in _reply_lines(reply):
            self._add(line)

    def note(self, text: str) -> None:
        """What neither side said: that TLS was started, or what went wrong."""
        self._add(f"-- {text}")

    def text(self, transaction: MailTransaction | None = None) -> str:
        """The dialogue, with that of `transaction` behind it."""
        lines = list(self._lines)
        if transaction is not None:
            lines += _transaction_lines(transaction)
        return "\n".join(lines)[:MAX_TRANSCRIPT_CHARACTERS]

    def _add(self, line: str) -> None:
        if self._characters < MAX_TRANSCRIPT_CHARACTERS:
            self._lines.append(line[:1000])
            self._characters += min(len(line), 1000) + 1


def _transaction_lines(transaction: MailTransaction) -> list[str]:
    """Command by command: with PIPELINING they went out together, but are easier to read each with its reply."""
    lines: list[str] = []
    for command, reply in zip(transaction.lines, [transaction.mail, *transaction.rcpt, transaction.data], strict=False):
        if reply is None and transaction.is_abandoned:
            continue  # it was never sent
        lines.append(f"C: {command.rstrip()}")
        lines += _reply_lines(reply) if reply is not None else []
    if transaction.content_written:
        lines += [f"C: [{transaction.size_bytes} octets of content]", "C: ."]
        lines += _reply_lines(transaction.final) if transaction.final is not None else []
    if transaction.error:
        lines.append(f"-- {transaction.error}")
    return lines


def _reply_lines(reply: Reply) -> list[str]:
    status = f"{reply.enhanced} " if reply.enhanced else ""
    texts = reply.lines or ("",)
    last = len(texts) - 1
    return [f"S: {reply.code}{' ' if n == last else '-'}{status}{text}".rstrip() for n, text in enumerate(texts)]
