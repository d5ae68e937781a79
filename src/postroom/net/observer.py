"""Who looks on while a connection is opened: told of each stage, what it found and what was said (SPEC section 7)."""

from __future__ import annotations

import ssl


class Observer:
    """Told of one attempt; this one keeps nothing.

    Stages come in the order of what happens, and one may come twice: "pop", "token", "resolve", "proxy", "connect",
    "tls", "greeting", "ehlo", "starttls", "auth"; of a request over HTTP "resolve", "proxy",
    "connect", "tls", "answer". One that is followed by another, or by the end of the opening, has passed; the one in
    which `ConnectFailed` is raised has failed.
    """

    def began(self, stage: str) -> None:
        """`stage` begins now."""

    def found(self, **facts: object) -> None:
        """What the stage that it is in has found, by name, in plain values."""

    def secured(self, tls: ssl.SSLObject) -> None:
        """The stage that it is in has TLS now."""

    def said(self, line: str) -> None:
        """One more line of the transcript, without secrets."""


#: Nobody looks on.
NOBODY = Observer()
