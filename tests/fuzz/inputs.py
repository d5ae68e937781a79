"""What the fuzz targets eat: where inputs come from, how they are cut, and how they are kept as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from tests.protocol.transcript_file import Said, Transcript, unescape

CORPUS = Path(__file__).parent / "corpus"

#: In the octets for a machine: what comes behind it comes after the answer to what stands before it; over TLS, if that
#: is what both sides are at.
PAUSE = b"\xff|"

_PLAIN = re.compile(rb"[ -\[\]-~]")
#: Inputs are mutated up to this size.
_MAX_BYTES = 4096


def cut(octets: bytes, size: int) -> Iterator[bytes]:
    """`octets` in pieces of `size`."""
    for start in range(0, len(octets), size):
        yield octets[start : start + size]


def wire(transcript: Transcript, side: str) -> bytes:
    """All that one side says in a transcript."""
    return PAUSE.join(turn.octets for turn in transcript.turns if isinstance(turn, Said) and turn.side == side)


def kept(target: str) -> dict[str, bytes]:
    """The inputs that a target once failed on, or that show something, by name."""
    return {path.stem: read(path) for path in sorted((CORPUS / target).glob("*.txt"))}


def read(path: Path) -> bytes:
    """An input as it is kept: its lines are joined, `\\r`, `\\n`, `\\x00` and `\\{5000*x}` stand for octets."""
    lines = path.read_text("utf-8").split("\n")
    return unescape("".join(line for line in lines if not line.startswith("#")))


def written(octets: bytes) -> str:
    """The text to keep an input as."""
    text = "".join(chr(octet) if _PLAIN.match(bytes([octet])) else f"\\x{octet:02x}" for octet in octets)
    lines = text.replace("\\x0d\\x0a", "\\r\\n\n").split("\n")
    return "\n".join("\\x23" + line[1:] if line.startswith("#") else line for line in lines)


def mutated(seeds: Sequence[bytes], tokens: Sequence[bytes], random: Random) -> bytes:
    """A seed with some changes; the same for the same state of `random`."""
    octets = bytearray(random.choice(seeds))
    for _ in range(random.choice((0, 1, 1, 2, 3, 5, 8))):
        at = random.randint(0, len(octets))
        end = min(len(octets), at + random.choice((1, 1, 2, 4, 16, 64)))
        match random.randrange(7):
            case 0:
                octets[at:end] = b""
            case 1:
                octets[at:at] = octets[at:end] * random.choice((1, 1, 2, 9))
            case 2:
                octets[at:end] = bytes(random.randrange(256) for _ in range(at, end))
            case 3:
                octets[at:at] = random.choice(tokens)
            case 4:
                octets[at:end] = random.choice(tokens)
            case 5:
                other = random.choice(seeds)
                octets[at:] = other[random.randint(0, len(other)) :]
            case _:
                octets = _lines_moved(octets, random)
    return bytes(octets[:_MAX_BYTES])


def _lines_moved(octets: bytearray, random: Random) -> bytearray:
    lines = octets.splitlines(keepends=True)
    if lines:
        lines.insert(random.randint(0, len(lines)), lines[random.randrange(len(lines))])
        del lines[random.randrange(len(lines))]
    return bytearray(b"".join(lines))
