"""What the process logs, and how it looks; values under names of secrets never leave."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET = re.compile(r"password|secret|credential|authorization|token|\bkeys?\b", re.IGNORECASE)
HIDDEN = "(hidden)"


def hide_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace values whose name says that they are secret (numbers, such as a fencing token, are not)."""
    for name, value in event.items():
        if name != "event" and isinstance(value, str | bytes) and value and _SECRET.search(name):
            event[name] = HIDDEN
    return event


class _ToStructlog(logging.Handler):
    """Hands on what libraries log with the standard library."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


class _Logger:
    """Writes lines to standard error. A log that can't be written, on a full disk or to a reader that has gone, stops
    nothing; how many lines that were is told once it can."""

    def __init__(self) -> None:
        self._lost = 0
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        """Write one line."""
        with self._lock:
            lost = self._lost
            if not self._write(line):
                self._lost += 1
                return
            self._lost = 0
        if lost:
            structlog.get_logger().warning("log_lines_lost", lines=lost)

    def _write(self, line: str) -> bool:
        try:
            print(line, file=sys.stderr, flush=True)
        except (OSError, ValueError):  # ValueError: it was closed
            return False
        return True

    debug = info = warning = error = critical = exception = log = msg


_LOGGER = _Logger()


def configure_logs(level: str, form: str) -> None:
    """Log to standard error from `level` up, as `text`, `json`, or (`auto`) text on a terminal and JSON elsewhere."""
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    # Plain: the pretty ones print local variables, and with them passwords.
    on_terminal = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    as_json = structlog.processors.JSONRenderer(default=str)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            hide_secrets,
            *([] if as_text else [structlog.processors.format_exc_info]),
            on_terminal if as_text else as_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _LOGGER,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        level=max(logging.WARNING, logging.getLevelName(level.upper())), handlers=[_ToStructlog()], force=True
    )
