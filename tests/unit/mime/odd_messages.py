"""Messages as nobody should write them, and a slow, plain reader of heads that judges what is done to them."""

from __future__ import annotations

import re
from dataclasses import dataclass

# By what is odd about each.
_WITH_LF: dict[str, bytes] = {
    "empty": b"",
    "only an empty line": b"\n",
    "only a body": b"\nTo: not a field\n",
    "no header, no empty line": b"Dear all,\nTo: whom it may concern\n",
    "only a header": b"From: a@x.test\nSubject: s\n",
    "a header without its line end": b"From: a@x.test\nSubject: s",
    "no empty line": b"From: a@x.test\nSubject: s\nthe text begins\nTo: b\n",
    "folded": b"Subject: one\n two\n\tthree\n   \tfour\nTo:\n b@y.test,\n\tc@y.test\n\nbody\n",
    "folded at the colon": b"Subject:\n s\nBcc:\n b@y.test\nDate:\n\tFri, 20 Nov 2026 08:00:00 +0000\n\nbody\n",
    "white space lines in it": b"Subject: s\n \n\t\n more\nBcc: b\n  \t \n b\nTo: c\n\nbody\n",
    "duplicated": b"Subject: 1\nFrom: a@x.test\nSubject: 2\nBCC: b\nFrom: c@x.test\nbcc: c\nSubject: 3\n\nbody\n",
    "groups": b"To: Friends: b@y.test, C <c@y.test>;, undisclosed-recipients:;\nBcc: Hidden:h@y.test;\n\nbody\n",
    "encoded words": (
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?iso-8859-1?b?5Pb8?=\n =?utf-8?b?IOKCrA==?=\n"
        b"From: =?utf-8?q?J=C3=B6rg?= <a@x.test>\n\nbody\n"
    ),
    "an encoded word that hides a field": b"Subject: =?utf-8?q?x=0D=0ABcc:_b@y.test?=\n\nbody\n",
    "broken encoded words": b"Subject: =?utf-8?q?open\n ?= =?none?q?x?= =?utf-8?b?!!!?=\nTo: =?=?=?=\n\nbody\n",
    "lines of a colon": b":\n: x\nSubject: s\n::\n\t:\nBcc: b\n\nbody\n",
    "lines without a colon": b"Subject: s\nno colon here\n folded?\nBcc: b\n more\nbare\nX-Postroom-A: 1\n\nbody\n",
    "an mbox line": b"From a@x.test Fri Nov 20 08:00:00 2026\nFrom: a@x.test\nBcc: b\n\nbody\n",
    "a quoted mbox line": b">From a@x.test Fri Nov 20 08:00:00 2026\n\tfolded\nFrom: a@x.test\n\nbody\n",
    "an mbox line below": b"Subject: s\nFrom a@x.test Fri Nov 20 08:00:00 2026\nBcc: b\n\nbody\n",
    "an orphan on top": b"From a Fri\n Bcc: b\n\tc\nFrom: a@x.test\n\nbody\n",
    "white space before the colon": (
        b"Bcc : b@y.test\nSubject\t: s\nX-Postroom-Account \t : one\nReturn-Path  :<r@y.test>\nTo : c\n\nbody\n"
    ),
    "odd case": b"bCC: b\nrEsEnT-bCc: c\nRETURN-path: <>\nx-POSTROOM-tag: t\nSUBJECT: s\n\nbody\n",
    "what only looks like ours": (
        b"X-Bcc: 1\nBcc-: 2\nBccc: 3\nX-Postroom: 4\nXX-Postroom-A: 5\nReturn-Path-X: 6\nB cc: 7\n"
        b"To: a\n Bcc: 8\n\nBcc: 9\n"
    ),
    "only what goes": b"Bcc: b\nX-Postroom-A: 1\n 2\n\nbody\n",
    "odd names": b'!#$%&\'*+-/=?^_`{|}~: 1\n(x): 2\n"q": 3\n@: 4\n0: 5\nSubject: s\n\nbody\n',
    "octets over 127": b"Subject: Gr\xfc\xdfe\nTo: \xff\xfe <b@y.test>\nX-\xe4: y\nBcc: \xe4@y.test\n\nb\xf6dy\n",
    "UTF-8": "Subject: Grüße 漢字\nFrom: Jörg <jörg@x.test>\nBcc: jürgen@y.test\n\nbödy\n".encode(),
    "control characters": b"Subject: a\x00b\x07\x1b[31m\x7f\nX\x00Y: z\nBcc: \x0b\x0c\n\nbody\x00\n",
    "a very long line": b"Subject: " + b"s" * 50_000 + b"\nBcc: " + b"b@y.test, " * 5000 + b"\nTo: c\n\nbody\n",
    "a very long name": b"X" * 5000 + b": 1\nSubject: s\nBcc" + b" " * 5000 + b": b\n\nbody\n",
    "many lines": b"Subject: s\n" + b" t\n" * 3000 + b"X-Field: x\n" * 3000 + b"Bcc: b\n\nbody\n",
    "obsolete syntax": (
        b"Date : Fri, 21 Nov 97 09(comment):   55  :  06 -0600\nFrom: Joe Q. Public <john . q . public@x.test>\n"
        b'To: Mary Smith <@node.test:mary@y.test>, , jdoe@test  . example\nMessage-ID: <"1234"   @   local(x) . test>\n'
        b"Resent-Bcc: x\n\nbody\n"
    ),
    "empty values": b"Date:\nMessage-ID: \nSubject:\nBcc:\nTo:\n \n\nbody\n",
    "a dot and an empty body": b"Subject: s\n.: x\n\n",
    "dots and empty lines": b"Subject: s\n\n.\n..\n\n\n.",
}

#: With CRLF line ends.
ODD_MESSAGES = {oddity: content.replace(b"\n", b"\r\n") for oddity, content in _WITH_LF.items()}


@dataclass
class Unit:
    """A field with its folded lines (`name` in small letters), or a line that belongs to none (`name` is empty)."""

    name: bytes
    octets: bytes


def read(head: bytes) -> list[Unit]:
    """The units of `head`, line by line; the empty line that ends it is none of them."""
    units: list[Unit] = []
    for line in re.findall(rb"[^\n]*\n|[^\n]+", head):
        if line == b"\r\n":
            break
        name, colon, _ = line.partition(b":")
        name = name.rstrip(b" \t")
        if line[:1] in (b" ", b"\t"):
            if units and units[-1].name:
                units[-1].octets += line
            else:
                units.append(Unit(b"", line))
        elif colon and name and all(33 <= octet <= 126 for octet in name):
            units.append(Unit(name.lower(), line))
        else:
            units.append(Unit(b"", line))
    return units


def is_removed(name: bytes, names: frozenset[bytes]) -> bool:
    """Whether a field of this name is meant by `names`."""
    return any(name.startswith(n[:-1]) and len(name) >= len(n) - 1 if n.endswith(b"*") else name == n for n in names)


def without(units: list[Unit], names: frozenset[bytes]) -> list[Unit]:
    """What is left of them."""
    return [unit for unit in units if not (unit.name and is_removed(unit.name, names))]


def top(units: list[Unit]) -> int:
    """How many lines at the beginning are no fields and stay in front of everything: an mbox line, orphans."""
    at = 0
    if units and not units[0].name and units[0].octets.startswith((b"From ", b">From ")):
        at = 1
    while at < len(units) and not units[at].name and units[at].octets[:1] in (b" ", b"\t"):
        at += 1
    return at


def edited(units: list[Unit], prepend: bytes, append: bytes) -> bytes:
    """The units with fields added on top and behind the last field that nothing but fields is above of."""
    first = last = top(units)
    while last < len(units) and units[last].name:
        last += 1
    parts = [unit.octets for unit in units]
    return b"".join([*parts[:first], prepend, *parts[first:last], append, *parts[last:]])
