"""The two ways in which an SMTP dialogue breaks (DESIGN section 6); a reply is neither, it is data."""

from __future__ import annotations


class LocalProtocolError(Exception):
    """We asked for what the protocol forbids: a fault of this program; nothing of it was written."""


class RemoteProtocolError(Exception):
    """The other side broke the protocol: this connection is dead.

    Server machines may answer with `reply_code` and `enhanced` before they close.
    """

    def __init__(self, reason: str, *, reply_code: int = 500, enhanced: str = "5.5.2") -> None:
        super().__init__(reason)
        self.reply_code = reply_code
        self.enhanced = enhanced
