"""The states of a submission server's connection, what moves it between them, and what one client may use.

Everything that is legal lives in `TRANSITIONS` (RFC 5321 section 4.1.4); the machine in `server` looks it up.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What one client may use; sizes in octets with the line end, counts per connection or message."""

    max_size_bytes: int = 35 * 1024 * 1024
    max_header_bytes: int = 1024 * 1024
    max_recipients: int = 1000
    max_errors: int = 20
    max_auth_failures: int = 10
    command_line_bytes: int = 4096
    auth_line_bytes: int = 12288


class State(StrEnum):
    """Where a connection is."""

    CONNECTED = "connected"  # no EHLO since the connection, or TLS, began
    READY = "ready"
    MAIL = "mail"  # a reverse-path was taken
    RCPT = "rcpt"  # and a recipient
    DATA = "data"  # content comes
    CHUNK = "chunk"  # the octets of a chunk come; also of one that is refused, which then leaves the state as it was
    CHUNKS = "chunks"  # between two chunks
    AUTH = "auth"  # a login goes on
    TLS = "tls"  # the handshake goes on; nothing is read as SMTP
    CLOSED = "closed"


class Verb(StrEnum):
    """What moves a connection; the last five are no commands."""

    EHLO = "EHLO"
    HELO = "HELO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "BDAT"
    RSET = "RSET"
    NOOP = "NOOP"
    HELP = "HELP"
    VRFY = "VRFY"
    AUTH = "AUTH"
    STARTTLS = "STARTTLS"
    QUIT = "QUIT"
    END_OF_DATA = "."
    END_OF_CHUNK = "end of chunk"
    END_OF_LAST = "end of last chunk"
    LOGGED_IN = "end of login"
    HANDSHAKE = "end of handshake"


S, V = State, Verb
_COMMANDING = (S.CONNECTED, S.READY, S.MAIL, S.RCPT, S.CHUNKS)

#: Where what succeeds leads; what is not here is out of order (503). A command refused leaves the state as it was.
TRANSITIONS: dict[tuple[State, Verb], State] = {
    **{(state, verb): S.READY for state in _COMMANDING for verb in (V.EHLO, V.HELO)},
    **{(state, verb): state for state in _COMMANDING for verb in (V.NOOP, V.HELP, V.VRFY)},
    **{(state, V.RSET): S.READY for state in (S.READY, S.MAIL, S.RCPT, S.CHUNKS)},
    **{(state, V.QUIT): S.CLOSED for state in _COMMANDING},
    (S.CONNECTED, V.RSET): S.CONNECTED,
    (S.READY, V.AUTH): S.AUTH,  # not within a transaction (RFC 4954 section 4)
    (S.AUTH, V.LOGGED_IN): S.READY,
    (S.READY, V.STARTTLS): S.TLS,
    (S.TLS, V.HANDSHAKE): S.CONNECTED,  # all that was known is forgotten (RFC 3207 section 4.2)
    (S.READY, V.MAIL): S.MAIL,
    (S.MAIL, V.RCPT): S.RCPT,
    (S.RCPT, V.RCPT): S.RCPT,
    (S.RCPT, V.DATA): S.DATA,
    (S.DATA, V.END_OF_DATA): S.READY,
    (S.RCPT, V.BDAT): S.CHUNK,  # RFC 3030 section 2
    (S.CHUNK, V.END_OF_CHUNK): S.CHUNKS,
    (S.CHUNKS, V.BDAT): S.CHUNK,
    (S.CHUNK, V.END_OF_LAST): S.READY,
}

#: The same, by state.
ALLOWED: dict[State, dict[Verb, State]] = {
    state: {verb: to for (at, verb), to in TRANSITIONS.items() if at is state} for state in State
}
