"""The errors that Postroom raises, and what each says at an edge.

GatewayError
├── InvalidInput          a field, its fault and its mend (RFC 9457 "errors")
│   └── NotFound          the thing named does not exist
├── Refused               a rule forbids it (rights, routing, loops)
│   └── Unauthenticated   credentials are missing or wrong
├── TooLarge              over a size limit
├── StateConflict         the thing is not in a state that allows it
├── Busy                  over a limit that passes by itself
│   └── LimitReached      of how much may be sent (SPEC section 2.7), and when there is room again
├── StorageFull           no room for what should be stored
├── StorageFailed         the store could not keep it (nothing was kept)
│   └── MaybeStored       the store failed while it kept it: nobody knows whether it did
└── NotRunning            the gateway, or what is asked of it, is not there

An edge (SMTP, REST, CLI) speaks of an error in its own tongue by `EDGES`; texts shown to strangers are generic,
the cause goes to the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one field: what is wrong with it and how to mend it."""

    field: str
    fault: str
    mend: str = ""

    def __str__(self) -> str:
        mend = f" ({self.mend})" if self.mend else ""
        return f"{self.field}: {self.fault}{mend}"


class GatewayError(Exception):
    """Anything that Postroom refuses or fails at; `str()` is fit for the person who asked."""


class InvalidInput(GatewayError):
    """Input with one fault or more; nothing of it was done."""

    def __init__(self, faults: Sequence[Fault] | Fault) -> None:
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("; ".join(map(str, self.faults)))


class NotFound(InvalidInput):
    """What was named does not exist."""


class Refused(GatewayError):
    """A rule forbids it; `status` is the enhanced status code (RFC 3463) that an SMTP edge gives."""

    def __init__(self, reason: str, *, status: str = "5.7.1", reply_code: int = 550) -> None:
        super().__init__(reason)
        self.status = status
        self.reply_code = reply_code


class Unauthenticated(Refused):
    """Credentials are missing or wrong."""

    def __init__(self, reason: str = "authentication failed") -> None:
        super().__init__(reason, status="5.7.8", reply_code=535)


class TooLarge(GatewayError):
    """Over a size limit."""


class StateConflict(GatewayError):
    """The thing is not in a state that allows what was asked."""


class Busy(GatewayError):
    """A limit that passes by itself was reached."""


class LimitReached(Busy):
    """An application, or an account that refuses, has sent as much as it may; `retry_after` says when it may again."""

    def __init__(self, reason: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class StorageFull(GatewayError):
    """There is no room for what should be stored; nothing was kept."""


class StorageFailed(GatewayError):
    """The store could not keep it; nothing was kept."""


class MaybeStored(StorageFailed):
    """The disk failed while it was being kept; whether it was is not known. SMTP gives no reply then."""


class NotRunning(GatewayError):
    """The gateway, or the part of it that was asked for, is not running."""


@dataclass(frozen=True, slots=True)
class Edge:
    """How one error is told: SMTP reply and enhanced status, HTTP status, exit status (sysexits.h)."""

    reply_code: int
    enhanced: str
    http_status: int
    exit_status: int


EDGES: dict[type[GatewayError], Edge] = {
    NotFound: Edge(550, "5.1.1", 404, 66),
    InvalidInput: Edge(501, "5.5.4", 422, 64),
    Unauthenticated: Edge(535, "5.7.8", 401, 77),
    Refused: Edge(550, "5.7.1", 422, 77),
    TooLarge: Edge(552, "5.3.4", 413, 65),
    StateConflict: Edge(503, "5.5.1", 409, 65),
    Busy: Edge(451, "4.3.2", 429, 75),
    LimitReached: Edge(451, "4.7.1", 429, 75),
    StorageFull: Edge(452, "4.3.1", 507, 75),
    StorageFailed: Edge(451, "4.3.0", 503, 75),
    MaybeStored: Edge(451, "4.3.0", 503, 75),
    NotRunning: Edge(451, "4.3.2", 503, 69),
    GatewayError: Edge(451, "4.3.0", 500, 70),
}


def edge(error: GatewayError) -> Edge:
    """The telling of `error`: of its own class, else of the nearest parent that has one."""
    return next(EDGES[cls] for cls in type(error).__mro__ if cls in EDGES)
