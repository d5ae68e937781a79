"""Whether two messages have the same body, by a digest of each.

Who composes a message anew draws new boundaries for its parts: they are left out.
"""

from __future__ import annotations

import hashlib
import re

from ..model.content import Content, StagedBody
from .head import scan

_BOUNDARY = re.compile(rb'(?i)\bboundary=(?:"([^"\r\n]*+)"|([^\s;"]++))')
_DELIMITER = re.compile(rb"(?m)^--([^\r\n]*+)")


def body_digest(content: Content) -> bytes:
    """SHA-256 of the body without the boundaries of its parts; of a staged one as it is."""
    body = content.body
    if isinstance(body, StagedBody):
        return body.sha256
    kind = scan(content.head).first(b"content-type") or b""
    if b"multipart/" in kind.lower():
        body = _without_boundaries(kind, body)
    return hashlib.sha256(body).digest()


def _without_boundaries(kind: bytes, body: bytes) -> bytes:
    boundaries = {found[1] or found[2] for found in _BOUNDARY.finditer(kind + b"\n" + body)}

    def shortened(line: re.Match[bytes]) -> bytes:
        delimiter = line[1].rstrip()
        return b"--" if delimiter in boundaries or delimiter.removesuffix(b"--") in boundaries else line[0]

    return _BOUNDARY.sub(b"", _DELIMITER.sub(shortened, body))
