"""CPU time and memory of a process with all its children, and the peak of one, from /proc (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the command's name, which may hold blanks; empty if it has gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def members(root: int) -> list[int]:
    """The pids of `root` and of everything below it that lives."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of `root` and everything below it, those that ended and were waited for included."""
    ticks = 0
    for pid in members(root):
        if fields := _stat(pid):
            ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / _TICKS_PER_SECOND


def resident_bytes(root: int) -> int:
    """Proportional set size of `root` and everything below it: pages that are shared count once."""
    total = 0
    for pid in members(root):
        try:
            lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024


def resident_and_peak_bytes(pid: int) -> tuple[int, int]:
    """What `pid` holds in memory now, and the most that it held since `forget_peak`, else since its start."""
    found = dict.fromkeys(("VmRSS", "VmHWM"), 0)
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024
    return found["VmRSS"], found["VmHWM"]


def forget_peak(pid: int) -> None:
    """The peak of `pid` begins anew with what it holds now (proc_pid_clear_refs(5))."""
    (_PROC / str(pid) / "clear_refs").write_text("5")
