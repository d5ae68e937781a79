"""Postroom's SMTP client alone, without queue or store, beside smtplib, aiosmtplib and nodemailer (SPEC section 11)."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from . import page, results
from .clients import CLIENTS, OURS, Client, present
from .process_tree import cpu_seconds
from .traffic import Sink, Void, wait_until

#: At least so many times aiosmtplib's rate, on the loop that suits it best.
GOAL = 4.0

#: Before the clock starts: connections are open, and node has compiled what is hot.
WARM_UP = 500


def measure(client: Client, folder: Path, messages: int, connections: int) -> dict[str, Any]:
    """One load of `client` on a sink of its own; its figures.

    Raises:
        Void: the client failed, or the sink has not counted exactly what was sent.
    """
    with Sink(folder) as sink:
        began = cpu_seconds(sink.pid)
        spent = client.run(sink.port, connections=connections, messages=messages, warm_up=WARM_UP)
        sent = messages + WARM_UP
        wait_until(lambda: sink.count() >= sent, 20, f"the sink has {sent} of {client.name}")
        counted, sink_cpu = sink.count(), cpu_seconds(sink.pid) - began
    if counted != sent:
        raise Void(f"{client.name}: {counted} counted at the sink, {sent} sent")
    return {
        "client": client.name,
        "connections": connections,
        "sent": messages,
        "messages_per_second": round(messages / spent.seconds, 1),
        "cpu_us_per_message": round(spent.cpu_seconds * 1e6 / messages, 1),
        "sink_cpu_us_per_message": round(sink_cpu * 1e6 / sent, 1),
        "load_average": os.getloadavg()[0],
    }


def medians(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per number of connections and client: the medians, and how many times its rate Postroom's is."""
    rows = []
    for connections in dict.fromkeys(run["connections"] for run in runs):
        ours = 0.0
        for name in dict.fromkeys(run["client"] for run in runs):
            these = [run for run in runs if (run["client"], run["connections"]) == (name, connections)]
            row = {"client": name, "connections": connections}
            row |= {key: statistics.median(run[key] for run in these) for key in these[0] if "_per_" in key}
            ours = ours or row["messages_per_second"]
            if name != OURS.name:
                row["times"] = round(ours / row["messages_per_second"], 2)
            rows.append(row)
    return rows


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per number of connections: Postroom beside the better aiosmtplib, and whether that is what is asked."""
    found = []
    for connections in dict.fromkeys(row["connections"] for row in rows):
        these = [row for row in rows if row["connections"] == connections and row["client"].startswith("aiosmtplib")]
        if these:
            times = min(row["times"] for row in these)
            found.append({"connections": connections, "times": times, "goal": GOAL, "met": times >= GOAL})
    return found


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench PART=client", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="of 4 KiB, per run")
    parser.add_argument("--connections", default="1,20")
    parser.add_argument("--runs", type=int, default=5, help="interleaved: each client once, then again")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the sink's counters")
    parser.add_argument("--dry", action="store_true", help="print only; keep no figures")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measure, print, keep the figures; 1 if a run was void."""
    options = _arguments(arguments)
    clients, absent = present(CLIENTS)
    figures = {
        "surroundings": results.surroundings(options.folder),
        "versions": {client.name: client.version() for client in clients},
        "absent": absent,
    }
    runs: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="postroom-bench-", dir=options.folder) as folder:
            for connections in map(int, options.connections.split(",")):
                for number in range(1, options.runs + 1):
                    for client in clients:
                        run = measure(client, Path(folder), options.messages, connections)
                        runs.append(run | {"run": number})
                        print(_line(run | {"run": number}), flush=True)
    except Void as reason:
        print(f"void: {reason}")
        return 1
    rows = medians(runs)
    kept = {**figures, "medians": rows, "verdicts": verdicts(rows), "runs": runs}
    print()
    print("\n".join(page.client(kept)))
    if not options.dry:
        print(f"\nwritten: {results.keep('client', kept)}")
        page.write("client", page.client(kept))
    return 0


def _line(run: dict[str, Any]) -> str:
    return (
        f"{run['connections']:>3} connections, run {run['run']}: {run['client']:<22}"
        f"{run['messages_per_second']:>8.0f}/s {run['cpu_us_per_message']:>6.0f} us CPU a message"
    )
