"""What a gateway asks of the kernel, read from strace: writes, syncs, and what clients are told."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: The longest string of a call that is kept whole: a page of the database.
_LONGEST = 16384

_SYNCS = "fsync,fdatasync"
_WRITES = "write,writev,pwrite64,pwritev,sendto,sendmsg,sendmmsg"

_LINE = re.compile(r"([0-9]+) +(?:<\.\.\. )?([a-z0-9_]+)(\(| resumed>)(.*)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_RESULT = re.compile(r" = (-?[0-9]+)")


@dataclass(slots=True)
class Call:
    """One system call: when it began and ended, as numbers of lines; `octets` are all that it carried."""

    name: str
    what: str  # the descriptor's path or addresses
    octets: bytes
    offset: int
    began: int
    ended: int
    result: int

    @property
    def is_sync(self) -> bool:
        """fsync or fdatasync that succeeded."""
        return self.name in ("fsync", "fdatasync") and self.result == 0


class Trace:
    """strace of a process and its threads; `prefix` goes before the command, `calls` when it has ended."""

    def __init__(self, strace: Path, folder: Path) -> None:
        self._path = folder / "trace"
        os.mkfifo(self._path)
        self._text: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wanted = f"trace={_SYNCS},{_WRITES}"
        # -D: the traced process is the child, and gets its signals.
        options = ["-D", "-f", "-qq", "-yy", "-xx", "-s", str(_LONGEST), "-e", wanted, "-e", "signal=none"]
        self.prefix: Sequence[str] = [str(strace), *options, "-o", str(self._path)]

    def _read(self) -> None:
        with self._path.open() as lines:
            self._text = lines.read().splitlines()

    def calls(self) -> list[Call]:
        """Every call in the order in which they ended."""
        self._reader.join()
        return sorted(self._calls(), key=lambda call: call.ended)

    def _calls(self) -> Iterator[Call]:
        begun: dict[str, tuple[int, str]] = {}
        for number, line in enumerate(self._text):
            found = _LINE.match(line)
            if found is None:
                continue
            thread, name, how, rest = found.groups()
            if rest.endswith("<unfinished ...>"):
                begun[thread] = number, rest.removesuffix("<unfinished ...>")
                continue
            began, first = begun.pop(thread, (number, "")) if how != "(" else (number, "")
            yield _call(name, first + rest, began, number)


def _call(name: str, text: str, began: int, ended: int) -> Call:
    octets = b"".join(bytes.fromhex(part.replace("\\x", "")) for part in _STRING.findall(text))
    named = re.match(r"[0-9]+<((?:\\x[0-9a-f]{2})+|[A-Z][^<]*\]|[^>]*)>", text)
    what = named[1] if named else ""
    if what.startswith("\\x"):
        what = bytes.fromhex(what.replace("\\x", "")).decode("utf-8", "replace")
    result = _RESULT.search(text[text.rfind(")") :])
    numbers = re.findall(r", ([0-9]+)", text[: text.rfind(")")])
    offset = int(numbers[-1]) if name.startswith("pwrite") and numbers else 0
    return Call(name, what, octets, offset, began, ended, int(result[1]) if result else -1)
