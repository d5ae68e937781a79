"""SMTP (RFC 5321) without I/O: client and server machines, the reply reader and the transfer coder they share."""

from __future__ import annotations

from .errors import LocalProtocolError, RemoteProtocolError

__all__ = ["LocalProtocolError", "RemoteProtocolError"]
