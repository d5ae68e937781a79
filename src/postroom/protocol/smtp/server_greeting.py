"""What the server says to EHLO, and the names that clients may give themselves there (RFC 5321 section 4.1.1.1)."""

from __future__ import annotations

import re

from .server_login import MECHANISMS

# Names in the wild hold underscores (RFC 5321 has none); anything else could break a trace header.
_NAME = re.compile(rb"[A-Za-z0-9._-]{1,255}|\[[A-Za-z0-9.:-]{1,80}\]")
_NOT_IN_A_NAME = re.compile(rb"[^A-Za-z0-9._-]")

#: As EHLO lists them; BINARYMIME is not offered, so content is lines, also in chunks (RFC 3030 section 3).
EXTENSIONS = ("PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")


def helo_name(argument: bytes, *, takes_any: bool) -> str | None:
    """The client's name, or None where it is none.

    With `takes_any` every name is one, the empty one too; what could break a trace header becomes `_`.
    """
    name = argument.strip(b" \t")
    if _NAME.fullmatch(name):
        return name.decode("ascii")
    return _NOT_IN_A_NAME.sub(b"_", name[:255]).decode("ascii") if takes_any else None


def ehlo_reply(hostname: str, max_size_bytes: int, starttls: bool, auth: bool) -> bytes:
    """The server's name, and a line for each extension that it offers now."""
    lines = [hostname, *EXTENSIONS, f"SIZE {max_size_bytes}"]
    if starttls:
        lines.append("STARTTLS")
    if auth:
        lines.append("AUTH " + " ".join(MECHANISMS))
    return ("".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n").encode("ascii")
