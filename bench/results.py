"""What a benchmark ran on, and the file that keeps its figures (bench/results.json, one key per part)."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.json"


def fsync_milliseconds(folder: Path) -> float:
    """What one 4 KiB write with fsync costs here, the mean of 200."""
    path = folder / "fsync.probe"
    with path.open("wb", buffering=0) as probe:
        probe.write(bytes(4096 * 200))
        os.fsync(probe.fileno())
        probe.seek(0)
        started = time.perf_counter()
        for _ in range(200):
            probe.write(b"x" * 4096)
            os.fsync(probe.fileno())
        spent = time.perf_counter() - started
    path.unlink()
    return round(spent * 1000 / 200, 4)


def file_system(folder: Path) -> str:
    """The kind of file system that `folder` is on, as it is mounted."""
    command = ["df", "--output=fstype", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]


def surroundings(folder: Path) -> dict[str, Any]:
    """Machine, versions and date."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_mib": memory // 1024,
        "kernel": platform.release(),
        "file_system": file_system(folder),
        "fsync_ms": fsync_milliseconds(folder),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "uvloop": _version("uvloop"),
        "postroom": _version("postroom"),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def keep(part: str, figures: dict[str, Any]) -> Path:
    """Write the figures of `part`; those of other parts stay as they are."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[part] = figures
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    return RESULTS
