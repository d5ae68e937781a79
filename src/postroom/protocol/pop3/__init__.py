"""POP3 (RFC 1939) without I/O, as far as a login goes: it opens relays that know their clients by it."""

from __future__ import annotations
