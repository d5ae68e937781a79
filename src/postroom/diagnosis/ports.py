"""Which process holds a TCP port (Linux: /proc)."""

from __future__ import annotations

import os
from pathlib import Path

_LISTENING = "0A"
_COMMAND_LENGTH = 100


def port_holders(port: int) -> list[tuple[int, str]]:
    """Process ids and command lines of those who listen on `port`, as far as this user may see them."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for row in map(str.split, rows):
            if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{row[9]}]")
    if not inodes:
        return []
    return [found for process in Path("/proc").glob("[0-9]*") if (found := _if_holding(process, inodes))]


def _if_holding(process: Path, inodes: set[str]) -> tuple[int, str] | None:
    try:
        if any(os.readlink(descriptor) in inodes for descriptor in (process / "fd").iterdir()):
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            return int(process.name), words.strip()[:_COMMAND_LENGTH]
    except OSError:  # it has ended, or belongs to somebody else
        return None
    return None


def describe_holder(port: int) -> str:
    """`held by process 4711 (postfix ...)`, or what can be said without knowing."""
    holders = [f"process {pid} ({words})" for pid, words in port_holders(port) if pid != os.getpid()]
    return f"held by {', '.join(holders)}" if holders else "held by a process that this user may not look into"
