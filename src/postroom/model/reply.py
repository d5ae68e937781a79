"""A reply of an SMTP server (RFC 5321 section 4.2), with the command that it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole reply.

    `code` has three digits; clients decide on the first (RFC 5321 section 4.3.2). `enhanced` is the enhanced status
    code (RFC 3463) or empty; `lines` are the texts without code and enhanced status; `command` is the verb answered
    ("" for the greeting and for what no command asked for).
    """

    code: int
    lines: tuple[str, ...] = ()
    enhanced: str = ""
    command: str = ""

    @property
    def is_positive(self) -> bool:
        """2yz: the command was done."""
        return 200 <= self.code < 300

    @property
    def is_intermediate(self) -> bool:
        """3yz: the server waits for more (354, 334)."""
        return 300 <= self.code < 400

    @property
    def is_transient(self) -> bool:
        """4yz: refused for now."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """5yz: refused for good."""
        return 500 <= self.code < 600

    @property
    def text(self) -> str:
        """The reply in one line, as people quote it: code, enhanced status and texts."""
        parts = [str(self.code), self.enhanced, " ".join(self.lines)]
        return " ".join(part for part in parts if part)
