"""A reply of a POP3 server (RFC 1939 section 3), with the command that it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PopReply:
    """One whole reply.

    `code` is the response code (RFC 2449 section 8, RFC 3206) in capitals and without its brackets, as in SYS/TEMP, or
    empty; `text` is what stands behind it; `lines` are those below, of a reply that has more; `command` is the verb
    answered ("" for the greeting).
    """

    is_positive: bool
    text: str = ""
    code: str = ""
    lines: tuple[str, ...] = ()
    command: str = ""

    @property
    def words(self) -> str:
        """The first line, as people quote it."""
        parts = ["+OK" if self.is_positive else "-ERR", f"[{self.code}]" if self.code else "", self.text]
        return " ".join(part for part in parts if part)
