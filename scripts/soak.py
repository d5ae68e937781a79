"""Puts the figures of a crash test into docs/reliability.md: `python -m scripts.soak REPORT` (see `make soak`).

REPORT is what tests/e2e/test_crash.py writes where CRASH_REPORT says. Every kill goes to bench/results.json.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from bench import page, results
from postroom import __version__

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"

#: What the report calls it, what the page does.
ROWS = {
    "open": "messages taken by the sink and not answered",
    "connections": "connections to the sink",
    "cut": "submissions cut before their end of data",
    "in_doubt": "submissions cut between end of data and reply",
    "marked": 'messages marked "may be sent twice" at the start after it',
    "duplicated": "messages of which the sink has a second copy",
    "lost": "messages acknowledged and lost",
}


def lines(figures: dict[str, Any], machine: dict[str, Any]) -> list[str]:
    """The figures as a table: each quantity over all kills."""
    kills = [dict(zip(figures["columns"], kill.split(), strict=True)) for kill in figures["kills"]]
    counted = figures["submissions"]
    told = [
        page.where(machine),
        f"Postroom {__version__}: {len(kills)} kills over {counted['acknowledged']} acknowledged messages in"
        f" {figures['seconds'] / 60:.0f} minutes (CRASH_SEED={figures['seed']}); beside them {counted['refused']}"
        f" submissions were refused, {counted['cut']} cut or given up before their end of data, {counted['in_doubt']}"
        f" cut between end of data and reply. {figures['arrived']} deliveries arrived.",
        "",
        "| at a kill | least | median | most | in all |",
        "|---|---|---|---|---|",
    ]
    for name, words in ROWS.items():
        of = [int(kill[name]) for kill in kills]
        told.append(f"| {words} | {min(of)} | {statistics.median(of):g} | {max(of)} | {sum(of)} |")
    for name, most in (("marked", 3), ("duplicated", 2)):
        highest = max(int(kill[name]) / int(kill["connections"]) for kill in kills)
        told.append(f"| {name} per open connection (at most {most}) | | | {highest:.2f} | |")
    return told


def main(report: Path) -> None:
    """Write the page and keep the figures."""
    figures = json.loads(report.read_text())
    machine = results.surroundings(report.parent)
    results.keep("soak", {"surroundings": machine, "version": __version__, **figures})
    page.write("soak", lines(figures, machine), PAGE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
