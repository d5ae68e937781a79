"""The figures of docs/performance.md, written from bench/results.json so that the page never says anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def write(part: str, lines: list[str], page: Path = PAGE) -> None:
    """Put `lines` between the marks of `part` in the page.

    Raises:
        ValueError: the page has no such marks.
    """
    begin, end = f"<!-- {part} -->", f"<!-- end of {part} -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no place for the figures of {part}: {begin} ... {end}")
    page.write_text("\n".join([before + begin, "", *lines, "", end + after]))


def relay(figures: dict[str, Any]) -> list[str]:
    """The medians of the relay benchmark as a table."""
    lines = [where(figures["surroundings"]) + f" Postfix {figures['postfix']}.", ""]
    lines += ["| connections | gateway | relayed/s | runs | accepted/s | CPU us/message | MiB | fsync/message |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    ratios = []
    for row in figures["medians"]:
        for name in [name for name in row if isinstance(row[name], dict)]:
            of, cell = row[name], _runs(figures["runs"], row["connections"], name)
            numbers = [of["relayed_per_second"], cell, of["accepted_per_second"], of["cpu_us_per_message"]]
            cells = [row["connections"], name, *numbers, of["resident_mib"], of.get("syncs_per_message", "")]
            lines.append("| " + " | ".join(f"{cell:.0f}" if _large(cell) else str(cell) for cell in cells) + " |")
            if "rate_ratio" in of:
                ratios.append(
                    f"* {row['connections']} connections, {name}: **{of['rate_ratio']:.1f} times** the better Postfix, "
                    f"with 1/{of['cpu_ratio']:.1f} of its CPU a message."
                )
    return [*lines, "", *ratios]


def _large(cell: object) -> bool:
    return isinstance(cell, float) and cell > 10


def _runs(runs: list[dict[str, Any]], connections: int, name: str) -> str:
    these = [run for run in runs if (run["connections"], run["gateway"]) == (connections, name)]
    return ", ".join(f"{run['relayed_per_second']:.0f}" for run in these)


def durability(figures: dict[str, Any]) -> list[str]:
    """What fsync costs."""
    with_fsync, without = (f"{rate:.0f}" for rate in figures["medians"].values())
    share = f"{100 * figures['share']:.0f} %"
    said = f"{with_fsync} messages a second as shipped, {without} without any fsync: {share} of the rate is left."
    return [where(figures["surroundings"]), "", said]


def where(surroundings: dict[str, Any]) -> str:
    """One sentence on machine and date."""
    return (
        f"Measured {surroundings['date'][:10]} on {surroundings['cores']} cores ({surroundings['cpu']}), "
        f"{surroundings['file_system']}, fsync of 4 KiB {surroundings['fsync_ms']:.2f} ms, "
        f"Python {surroundings['python']}, SQLite {surroundings['sqlite']}, "
        f"uvloop {surroundings['uvloop'] or 'absent'}."
    )
