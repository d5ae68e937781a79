"""A head is read as RFC 5322 section 2.2 says line by line; editing it leaves every other octet as it is.

An input is what is done (one octet) and the head.
"""

from __future__ import annotations

import re

from postroom.mime.head import edit, scan, split

TOKENS = (
    b"\r\n", b"\n", b"\r", b"\r\n ", b"\r\n\t", b"\n\n", b": ", b":", b" :", b"\t", b"Bcc: ", b"bcc", b"X-Postroom-",
    b"From ", b">From a ", b"From : ", b"Received: ", b"\xc3\xa9", b"\x00",
)  # fmt: skip
REMOVED = frozenset({b"bcc", b"x-postroom-*"})
PREPENDED, APPENDED = b"Received: from a\r\n\tby b\r\n", b"Date: today\r\n"

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_MBOX = re.compile(rb">?From (?![ \t]*:)")


def seeds() -> list[bytes]:
    """Heads, good and bad."""
    return [
        b"\x07From: <a@b.test>\r\nbCc : c@d.test,\r\n e@f.test\r\nX-Postroom-Account: one\r\nSubject: x\r\n\r\nbody",
        b"\x07From a@b.test Mon\r\n orphan\r\nTo: c\r\nBcc:\r\n \r\n\tx\r\nno colon\r\nBcc: y\r\n\r\n",
        b"\x07To: a\nBCC: b\n c\n\nbody",
        b"\x03 orphan\r\nTo: a",
        b"\x05Bcc: a",
        b"\x07\r\nbody",
    ]


def one_input(data: bytes) -> None:
    """See the top."""
    if not data:
        return
    content = data[1:]
    _split(content)
    _scan(content)
    head = split(content)[0]
    prepend, append = PREPENDED * bool(data[0] & 1), APPENDED * bool(data[0] & 2)
    remove = REMOVED if data[0] & 4 else frozenset[bytes]()
    left = b"".join(line for line, name in _units(head) if name is None or not _is_removed(name, remove))
    edited = edit(head, prepend=prepend, remove=remove, append=append)
    top, end = _top_and_end(left)
    assert edited == left[:top] + prepend + left[top:end] + append + left[end:]
    assert not any(_is_removed(name, remove) for name, _, _ in scan(edited).fields)


def _scan(head: bytes) -> None:
    fields = [(line, name) for line, name in _units(head) if name is not None]
    assert [(head[start:end], name) for name, start, end in scan(head).fields] == fields
    bcc = b"".join(line for line, name in _units(head) if name != b"bcc")
    assert edit(head, remove=frozenset({b"bcc"})) == bcc


def _split(content: bytes) -> None:
    head, body = split(content)
    assert content.endswith(body)
    before = content[: len(content) - len(body)]
    assert head in (before, before + b"\r\n", before + b"\r\n\r\n")
    assert head.endswith((b"\n\n", b"\n\r\n")) or head in (b"\n", b"\r\n")
    if head != before:  # only where no empty line ended it
        assert b"\n\n" not in before and b"\n\r\n" not in before and not before.startswith((b"\n", b"\r\n"))


def _units(head: bytes) -> list[tuple[bytes, bytes | None]]:
    """Each field whole with its name in small letters, and the lines that are of none with None."""
    found: list[tuple[bytes, bytes | None]] = []
    for line in _lines(head):
        field = _FIELD.match(line)
        if field:
            found.append((line, field[1].lower()))
        elif line[:1] in (b" ", b"\t") and found and found[-1][1] is not None:
            found[-1] = (found[-1][0] + line, found[-1][1])
        else:
            found.append((line, None))
    return found


def _lines(head: bytes) -> list[bytes]:
    """A line ends at LF alone."""
    return re.findall(rb"[^\n]*\n|[^\n]+", head)


def _is_removed(name: bytes, remove: frozenset[bytes]) -> bool:
    return any(name.startswith(one[:-1]) if one.endswith(b"*") else name == one for one in remove)


def _top_and_end(head: bytes) -> tuple[int, int]:
    """Where fields may be prepended, and where those at the top end."""
    top = 0
    lines = _lines(head)
    for number, line in enumerate(lines):
        if not (line[:1] in (b" ", b"\t") or (number == 0 and _MBOX.match(line))):
            break
        top += len(line)
    end = top
    for line, name in _units(head[top:]):
        if name is None:
            break
        end += len(line)
    return top, end
