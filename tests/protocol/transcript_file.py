"""Reads transcripts; `transcripts/README.md` tells their form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from postroom.model.envelope import DsnRequest, Envelope

FOLDER = Path(__file__).parent / "transcripts"

_SAID = re.compile(r"([CS])(?:\*([0-9]+))?:(?: (.*))?")
_OPTION = re.compile(r"([a-z_]+): (.*)")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|\{([0-9]+)\*([^}]*)\}|(.))|(\*)")
_LETTERS = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0"}
_WHOLE_REPLY = re.compile(r"([2-5][0-9][0-9]) \.\.\.")
_PATH = re.compile(r'<((?:"(?:[^"\\]|\\.)*"@)?[^>]*)>')


@dataclass
class Line:
    """One line as it is sent, and the pattern of what must come; `whole_reply` is the code of an `S: 250 ...`."""

    octets: bytes
    pattern: re.Pattern[bytes]
    whole_reply: bytes = b""


@dataclass
class Said:
    """What one side ("C", "S") writes at once."""

    side: str
    lines: list[Line] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.side}: {self.octets[:1000]!r}"

    @property
    def octets(self) -> bytes:
        """All of it."""
        return b"".join(line.octets for line in self.lines)

    @property
    def pattern(self) -> re.Pattern[bytes]:
        """What all of it must look like."""
        return re.compile(b"".join(line.pattern.pattern for line in self.lines))


#: What is said, or what stands in square brackets.
Turn = Said | str


@dataclass
class Listed:
    """A message in a transcript."""

    envelope: Envelope
    content: bytes | None = None


@dataclass(repr=False)
class Transcript:
    """One file. `messages` were taken (server) or are to be sent (client), `results` is how these ended."""

    name: str
    title: str = ""
    options: dict[str, str] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    messages: list[Listed] = field(default_factory=list)
    results: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return self.name

    def said(self, side: str) -> list[bytes]:
        """Every write of one side."""
        return [turn.octets for turn in self.turns if isinstance(turn, Said) and turn.side == side]


def transcripts(side: str) -> list[Transcript]:
    """All of one folder ("server", "client"), by name."""
    return [read(path) for path in sorted((FOLDER / side).glob("*.smtp"))]


def read(path: Path) -> Transcript:
    """The transcript in a file."""
    found = Transcript(path.stem)
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        try:
            _take(found, line)
        except ValueError as error:
            raise ValueError(f"{path.name}:{number}: {error}") from error
    return found


def unescape(text: str) -> bytes:
    """The octets that `text` stands for."""
    return b"".join(octets for octets, _ in _pieces(text))


def _take(found: Transcript, line: str) -> None:
    if line.startswith("#"):
        found.title = found.title or line[1:].strip()
    elif said := _SAID.fullmatch(line):
        turns = found.turns
        if not turns or not isinstance(turns[-1], Said) or turns[-1].side != said[1]:
            turns.append(Said(said[1]))
        last = turns[-1]
        assert isinstance(last, Said)
        last.lines += [_line(said[3] or "")] * int(said[2] or 1)
    elif line.startswith("[") and line.endswith("]"):
        found.turns.append(line[1:-1])
    elif line.startswith("M: "):
        found.messages.append(Listed(envelope(unescape(line[3:]).decode())))
    elif line.startswith("R: "):
        found.results.append(line[3:])
    elif line.startswith("|"):
        octets = _line(line[2:]).octets
        found.messages[-1].content = (found.messages[-1].content or b"") + octets
    elif option := _OPTION.fullmatch(line):
        if found.turns or option[1] in found.options:
            raise ValueError("an option twice, or behind what is said")
        if option[1] == "message":
            found.messages.append(Listed(envelope(unescape(option[2]).decode())))
        else:
            found.options[option[1]] = option[2]
    elif line.strip():
        raise ValueError(f"cannot be read: {line}")


def _line(text: str) -> Line:
    whole = _WHOLE_REPLY.fullmatch(text)
    if whole is not None:
        code = whole[1].encode()
        pattern = b"(?:" + code + rb"-[^\r\n]*\r\n)*" + code + rb"(?: [^\r\n]*)?\r\n"
        return Line(text.encode() + b"\r\n", re.compile(pattern), code)
    end = b"\r\n"
    if re.search(r"(?<!\\)(?:\\\\)*\\\Z", text):
        text, end = text[:-1], b""
    pieces = [*_pieces(text), (end, False)]
    pattern = b"".join(rb"[^\r\n]*" if is_wild else re.escape(octets) for octets, is_wild in pieces)
    return Line(b"".join(octets for octets, _ in pieces), re.compile(pattern))


def _pieces(text: str) -> Iterator[tuple[bytes, bool]]:
    """Octets, and whether they are a wildcard where they must come."""
    at = 0
    for found in _ESCAPE.finditer(text):
        yield text[at : found.start()].encode(), False
        at = found.end()
        octet, times, repeated, letter, wild = found.groups()
        if wild:
            yield b"*", True
        elif octet:
            yield bytes.fromhex(octet), False
        elif times:
            yield unescape(repeated) * int(times), False
        else:
            yield _LETTERS.get(letter, letter.encode()), False
    yield text[at:].encode(), False


def envelope(text: str) -> Envelope:
    """`<a@b.test> SMTPUTF8 -> <c@d.test> NOTIFY=NEVER <e@f.test>`."""
    before, arrow, behind = text.partition(" -> ")
    if not arrow:
        raise ValueError("an envelope has an arrow")
    [(sender, of_mail)] = _paths(before)
    recipients = _paths(behind)
    ret, envid = of_mail.pop("RET", ""), of_mail.pop("ENVID", "")
    notify = tuple(parameters.pop("NOTIFY", "") for _, parameters in recipients)
    orcpt = tuple(parameters.pop("ORCPT", "") for _, parameters in recipients)
    asks = bool(ret or envid or any(notify) or any(orcpt))
    found = Envelope(
        sender,
        tuple(path for path, _ in recipients),
        eight_bit=of_mail.pop("BODY", "") == "8BITMIME",
        smtputf8=of_mail.pop("SMTPUTF8", None) is not None,
        dsn=DsnRequest(ret, envid, notify, orcpt) if asks else None,
    )
    if of_mail or any(parameters for _, parameters in recipients):
        raise ValueError("a parameter that is not known")
    return found


def _paths(text: str) -> list[tuple[str, dict[str, str]]]:
    """Each path, with the parameters behind it."""
    found: list[tuple[str, dict[str, str]]] = []
    marks = list(_PATH.finditer(text))
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        words = text[mark.end() : following.start() if following else len(text)].split()
        found.append((mark[1], {word.partition("=")[0]: word.partition("=")[2] for word in words}))
    return found
