"""How many files and connections the process may have open, and how many of them clients may take."""

from __future__ import annotations

import resource
from collections.abc import Callable

import structlog

from ..errors import NotRunning

_log = structlog.get_logger()

#: For the database, the log, the control socket and look-ups of names: idle it has 27 open.
OWN = 48
#: Connections of clients, and to relays, below which it is not worth to begin.
LEAST = 8


def room_for_clients() -> Callable[[int], int]:
    """Raise the limit of open files as far as this user may. The result says how many connections of clients fit beside
    so many outgoing ones (half of what there is, if that is less) now: the limit may be changed from outside.

    Raises:
        NotRunning: too few fit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:  # macOS has another limit below the hard one
            _log.info("open_files_not_raised", reason=str(error))

    def room(outgoing: int) -> int:
        rest = _limit() - OWN
        return rest - min(outgoing, rest // 2)

    least = OWN + 2 * LEAST
    if _limit() < least:
        raise NotRunning(
            f"the process may have {_limit()} files open and needs {least} at least: raise the limit (ulimit -n 1024,"
            " or LimitNOFILE=1024 of the service)"
        )
    return room


def _limit() -> int:
    limit: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit if limit != resource.RLIM_INFINITY else 1 << 30
