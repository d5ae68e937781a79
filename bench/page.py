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


def client(figures: dict[str, Any]) -> list[str]:
    """The medians of the clients as a table, and whether the goal is met."""
    lines = [where(figures["surroundings"]) + " " + _versions(figures), ""]
    lines += ["| connections | client | messages/s | runs | CPU us/message | sink's CPU us/message | Postroom's rate |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in figures["medians"]:
        these = [run for run in figures["runs"] if all(run[key] == row[key] for key in ("client", "connections"))]
        runs = ", ".join(f"{run['messages_per_second']:.0f}" for run in these)
        rates = [row["messages_per_second"], row["cpu_us_per_message"], row["sink_cpu_us_per_message"]]
        rate, cpu, sink_cpu = (f"{number:.0f}" for number in rates)
        times = f"{row['times']:.1f} times" if "times" in row else ""
        lines.append(f"| {row['connections']} | {row['client']} | {rate} | {runs} | {cpu} | {sink_cpu} | {times} |")
    verdicts = [
        f"* {_connections(one)}: **{one['times']:.1f} times** the better aiosmtplib;"
        f" {one['goal']:.0f} times is asked: {_met(one)}."
        for one in figures["verdicts"]
    ]
    return [*lines, "", *verdicts, *_absent(figures)]


def flights(figures: dict[str, Any]) -> list[str]:
    """Round trips of each client on one connection."""
    lines = [where(figures["surroundings"]) + f" Postfix {figures['postfix']}. " + _versions(figures), ""]
    lines += [
        "| client | connections | flights/message | with set-up and QUIT | messages/s | time/message, round trips |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for row in figures["rows"]:
        numbers = [row["flights_per_message"], row["all_flights_per_message"], row["messages_per_second"]]
        numbers += [row["round_trips_of_time_per_message"]]
        lines.append(
            f"| {row['client']} | {row['connections']} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |"
        )
    verdicts = [
        f"* {row['client']}: **{row['flights_per_message']:.2f}** round trips a message ({row['messages']} messages,"
        f" {_connections(row)}); at most {row['goal']} is asked: {_met(row)}."
        for row in figures["rows"]
        if "goal" in row
    ]
    return [*lines, "", *verdicts, *_absent(figures)]


def limits(figures: dict[str, Any]) -> list[str]:
    """Times and shares, then the memory that each attack costs."""
    lines = [where(figures["surroundings"]), "", "| what | measured | asked | |", "|---|---|---|---|"]
    for row in figures["times"]:
        lines.append(f"| {row['what']} | {_amount(row, 'value')} | under {_amount(row, 'goal')} | {_met(row)} |")
    slowed = figures["slowed"]
    if slowed:
        alone, beside = (", ".join(f"{rate:.0f}" for rate in slowed[key]) for key in ("alone", "beside_dead"))
        lines += ["", f"Messages a second of the healthy account alone: {alone}; beside the dead one: {beside}."]
    lines += [
        "",
        "| attack | what came of it | memory at its peak | grown by | at most | |",
        "|---|---|---|---|---|---|",
    ]
    for row in figures["memory"]:
        peak = f"{row['peak_mib']:.0f} MiB"
        cells = [row["what"], row["seen"], peak, _amount(row, "value"), _amount(row, "goal"), _met(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def start(figures: dict[str, Any]) -> list[str]:
    """Times and memory of starts with a backlog; of several the worst counts."""
    lines = [where(figures["surroundings"]), "", "| start | measured | runs | asked | |", "|---|---|---|---|---|"]
    for row in figures["rows"]:
        runs = ", ".join(f"{value:.2f}" for value in row["runs"]) if len(row["runs"]) > 1 else ""
        cells = [row["what"], _amount(row, "value"), runs, f"under {_amount(row, 'goal')}", _met(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def fairness(figures: dict[str, Any]) -> list[str]:
    """Who goes before whom."""
    lines = [where(figures["surroundings"]), "", "| what | measured | at most | |", "|---|---|---|---|"]
    for row in figures["rows"]:
        goal = f"{row['goal']:,}" if "goal" in row else ""
        amount = f"{row['value']:.{0 if row['unit'] == 'messages' else 1}f} {row['unit']}"
        lines.append(f"| {row['what']} | {amount} | {goal} | {_met(row) if goal else ''} |")
    return lines


_VERDICTS = {"met": "met", "open": "within the noise", "missed": "**missed**"}


def hostile(figures: dict[str, Any]) -> list[str]:
    """What each attack of a relay costs the account beside it, and what all at once come to."""
    lines = [where(figures["surroundings"]), ""]
    heads = ["attack", "relayed/s alone", "beside it", "slowed by", "at the worst stage", "CPU us/message alone"]
    heads += [
        "beside it",
        "late alone",
        "late beside it",
        "grown alone",
        "grown beside it",
        "taken of one connection",
        "",
    ]
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in figures["rows"]:
        slowed = f"{row['slowed_percent']:.1f} % ± {row['uncertain']:.1f}"
        cells = [row["attack"], f"{row['alone']:.0f}", f"{row['beside']:.0f}", slowed]
        cells.append(f"{row['worst_stage']}: {row['worst_percent']:.1f} %")
        cells += [f"{row['cpu_alone']:.0f}", f"{row['cpu_beside']:.0f}"]
        cells += [
            f"{row[f'late_{when}']:.0f} ms, at most {row[f'most_late_{when}']:.0f}" for when in ("alone", "beside")
        ]
        cells += [f"{row[f'most_grown_{when}']:.1f} MiB" for when in ("alone", "beside")]
        cells += [f"{row['most_kib_of_one']:.0f} KiB", _VERDICTS.get(row.get("verdict"), "")]
        lines.append("| " + " | ".join(cells) + " |")
    every, refusing = figures["whole"], figures["refusing"]
    lines += [
        "",
        f"All together ({every['runs']} pairs of runs, without the last two): slowed by"
        f" {every['slowed_percent']:.1f} % ± {every['uncertain']:.1f}: {_VERDICTS[every['verdict']]}.",
        "",
        f"While {refusing['messages']} messages go by the healthy account, {refusing['refused']} of the hostile one are"
        f" refused with 354 after it: {refusing['alone']:.0f} messages a second alone, {refusing['beside']:.0f} beside"
        f" it, slowed by {refusing['slowed_percent']:.1f} %: {_VERDICTS[refusing['verdict']]}.",
    ]
    lasting = figures["lasting"]
    lines += [
        "",
        f"{lasting['accounts']} hostile accounts at once for {lasting['seconds']:.0f} s: of {figures['rate']} messages"
        f" a second none was later than {lasting['late_ms']:.0f} ms (without them, in as long a time:"
        f" {lasting['late_alone_ms']:.0f} ms), memory grew by {lasting['grown_mib']:.1f} MiB."
        " What their relays saw:",
        "",
        "| attack | stage | connections/minute | logins/minute |",
        "|---|---|---|---|",
    ]
    for row in lasting["seen"]:
        numbers = f"{row['connections_a_minute']:.0f} | {row['logins_a_minute']:.0f}"
        lines.append(f"| {row['attack']} | {row['stage']} | {numbers} |")
    return lines


def _connections(row: dict[str, Any]) -> str:
    return f"{row['connections']} connection" + ("s" if row["connections"] > 1 else "")


def _amount(row: dict[str, Any], key: str) -> str:
    digits = {"s": 3, "%": 1, "MiB": 1}[row["unit"]]
    return f"{row[key]:.{digits if key == 'value' else 0}f} {row['unit']}"


def _met(row: dict[str, Any]) -> str:
    return "met" if row["met"] else "**missed**"


def _versions(figures: dict[str, Any]) -> str:
    named = {name.partition(" ")[0]: version for name, version in figures["versions"].items()}
    told = [f"{name} {version}" for name, version in named.items() if name not in ("postroom", "smtplib")]
    return ", ".join(told) + "." if told else ""


def _absent(figures: dict[str, Any]) -> list[str]:
    return [f"* Not measured: {name}, since {reason}." for name, reason in figures["absent"].items()]


def queue(figures: dict[str, Any]) -> list[str]:
    """Memory, rates and searches of a long queue."""
    head = "| queued | memory at its peak, 1,000 sent | 20,000 sent |"
    lines = [where(figures["surroundings"]), "", head, "|---|---|---|"]
    for row in figures["memory"]:
        later = f"{row['sent_mib']:.0f} MiB" if row["sent_mib"] else ""
        lines.append(f"| {row['queued']:,} | {row['mib']:.0f} MiB | {later} |")
    sizes = [row["mib"] for row in figures["memory"]]
    growth, most = sizes[-1] - sizes[0], max(max(row["mib"], row["sent_mib"] or 0) for row in figures["memory"])
    is_met = _met({"met": most < figures["goal_mib"] and growth < figures["goal_growth_mib"]})
    lines += [
        "",
        f"{most:.0f} MiB at the most, {growth:+.0f} MiB from the fewest to the most;"
        f" under {figures['goal_mib']:.0f} MiB and {figures['goal_growth_mib']:.0f} MiB are asked: {is_met}.",
        "",
        "| database | rows | enqueued/s | claimed/s | completed/s |",
        "|---|---|---|---|---|",
    ]
    for row in figures["rates"]:
        rates = " | ".join(f"{row[verb]:.0f}" for verb in ("enqueue", "claim", "complete"))
        lines.append(f"| {row['database']} | {row['rows']:,} | {rates} |")
    lines += ["", "| search | database | found | median | first | |", "|---|---|---|---|---|---|"]
    for row in figures["searches"]:
        times = f"{row['median_ms']:.1f} ms | {row['first_ms']:.1f} ms"
        lines.append(f"| {row['what']} | {row['database']} | {row['found']} | {times} | {_met(row)} |")
    return lines


def subjects(figures: dict[str, Any]) -> list[str]:
    """Searches for words of subjects."""
    head = f"| words, {figures['rows']:,} messages | database | found | median | first | |"
    lines = [where(figures["surroundings"]), "", head, "|---|---|---|---|---|---|"]
    for row in figures["searches"]:
        times = f"{row['median_ms']:.1f} ms | {row['first_ms']:.1f} ms"
        lines.append(f"| {row['what']} | {row['database']} | {row['found']} | {times} | {_met(row)} |")
    return lines


def retention(figures: dict[str, Any]) -> list[str]:
    """What a removal costs the mail beside it."""
    lines = [where(figures["surroundings"]), "", "| | without | beside the removal |", "|---|---|---|"]
    alone, beside = figures["flow_alone"], figures["flow_beside"]
    offered = f"{alone['offered_per_second']} messages a second offered"
    for what, key, unit in (("relayed/s", "relayed_per_second", ""), ("250 after, median", "median_ms", " ms"),
                            ("250 after, 99 of 100", "p99_ms", " ms")):  # fmt: skip
        lines.append(f"| {offered}: {what} | {alone[key]}{unit} | {beside[key]}{unit} |")
    lines.append(f"| as many as go through: relayed/s | {figures['most_alone']:.0f} | {figures['most_beside']:.0f} |")
    is_met = _met({"met": figures["cost"] < figures["goal"]})
    return [
        *lines,
        "",
        f"{figures['ended']:,} messages were removed in {figures['removed_in_s']} s; the removal cost"
        f" {100 * figures['cost']:.1f} % of the flow, under {100 * figures['goal']:.0f} % is asked: {is_met}."
        f" The file had {figures['file_mib_before']:.0f} MiB and {figures['file_mib_after']:.0f} MiB"
        f" {figures['shrunk_in_s']} s after the start.",
    ]
