"""Accept-and-relay: smtp-source -> gateway -> smtp-sink, Postroom beside Postfix in one run (SPEC section 11)."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import page, profiling, results
from .gateways import CONFIGURATIONS, MeasuredGateway, Postfix, Postroom, PostroomOnPostgresql, cpu_of, settle
from .process_tree import resident_bytes
from .traffic import Sink, Void, send

#: Sent before the clock starts, so that no one is measured while it forks its first processes.
WARM_UP = 500

Factory = Callable[[Path, int], MeasuredGateway]

GATEWAYS: dict[str, Factory] = {
    "postfix-debian": lambda folder, relay_port: Postfix(CONFIGURATIONS / "debian.cf", folder, relay_port),
    "postfix-tuned": lambda folder, relay_port: Postfix(CONFIGURATIONS / "tuned.cf", folder, relay_port),
    "postroom": lambda folder, relay_port: Postroom(folder, relay_port),
    # As many connections to the relay as Postfix opens by default (default_destination_concurrency_limit).
    "postroom-20": lambda folder, relay_port: Postroom(folder, relay_port, connections=20),
    "postroom-postgresql": lambda folder, relay_port: PostroomOnPostgresql(folder, relay_port),
}


@contextmanager
def running(factory: Factory, parent: Path) -> Iterator[tuple[MeasuredGateway, Sink]]:
    """A gateway with its own sink and folder, both gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="postroom-bench-", dir=parent))
    folder.chmod(0o755)  # Postfix's own user must get through
    try:
        with Sink(folder) as sink:
            gateway = factory(folder, sink.port)
            try:
                gateway.start()
                yield gateway, sink
            finally:
                gateway.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(factory: Factory, parent: Path, messages: int, connections: int) -> dict[str, Any]:
    """One run; its figures.

    Raises:
        Void: what was sent is not what the sink counted.
    """
    with running(factory, parent) as (gateway, sink):
        send(gateway.port, sink, WARM_UP, connections)
        settle(gateway)
        cpu = cpu_of(gateway)
        passage = send(gateway.port, sink, messages, connections)
        settle(gateway)
        figures = {
            "gateway": gateway.name,
            "connections": connections,
            "sent": messages,
            "counted": sink.count() - WARM_UP,
            "relayed_per_second": round(messages / passage.relayed_seconds, 1),
            "accepted_per_second": round(messages / passage.accepted_seconds, 1),
            "cpu_us_per_message": round((cpu_of(gateway) - cpu) * 1e6 / messages, 1),
            "resident_mib": round(sum(map(resident_bytes, gateway.pids)) / 2**20, 1),
            "load_average": os.getloadavg()[0],
        }
    if figures["counted"] != messages:
        raise Void(f"{figures['counted']} counted at the sink, {messages} sent")
    return figures


def syncs_per_message(parent: Path, messages: int, connections: int) -> float:
    """fsync and fdatasync of Postroom a message, checkpoints included, counted by strace in a run of its own."""
    postroom: list[Postroom] = []

    def traced(folder: Path, relay_port: int) -> MeasuredGateway:
        postroom.append(Postroom(folder, relay_port, traced=True))
        return postroom[0]

    with running(traced, parent) as (gateway, sink):
        send(gateway.port, sink, WARM_UP, connections)
        settle(gateway)
        before = postroom[0].syncs()
        send(gateway.port, sink, messages, connections)
        settle(gateway)
        return round((postroom[0].syncs() - before) / messages, 4)


def medians(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per number of connections: the median of every gateway, and Postroom beside the better Postfix."""
    rows = []
    for connections in dict.fromkeys(run["connections"] for run in runs):
        row: dict[str, Any] = {"connections": connections}
        for name in dict.fromkeys(run["gateway"] for run in runs):
            these = [run for run in runs if (run["gateway"], run["connections"]) == (name, connections)]
            figures = [key for key in these[0] if key.endswith(("_second", "_message", "_mib"))]
            row[name] = {key: statistics.median(run[key] for run in these) for key in figures}
        peers = [row[name] for name in row if name.startswith("postfix")]
        if peers:
            better = max(peers, key=lambda peer: peer["relayed_per_second"])
            for name in [name for name in row if name.startswith("postroom")]:
                ours = row[name]
                ours["rate_ratio"] = round(ours["relayed_per_second"] / better["relayed_per_second"], 2)
                ours["cpu_ratio"] = round(better["cpu_us_per_message"] / max(1, ours["cpu_us_per_message"]), 1)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], names: list[str]) -> str:
    """The medians for people."""
    columns = "{:>11}  {:<15}{:>10}{:>11}{:>8}{:>7}{:>8}"
    lines = [columns.format("connections", "gateway", "relayed/s", "accepted/s", "CPU us", "MiB", "fsyncs")]
    for row in rows:
        for name in names:
            of = row[name]
            rates = [round(of[key]) for key in ("relayed_per_second", "accepted_per_second", "cpu_us_per_message")]
            syncs = of.get("syncs_per_message", "")
            beside = f"  {of['rate_ratio']:.1f} times, CPU {1 / of['cpu_ratio']:.2f}" if "rate_ratio" in of else ""
            lines.append(columns.format(row["connections"], name, *rates, round(of["resident_mib"]), syncs) + beside)
    return "\n".join(lines)


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench PART=relay", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000, help="of 4 KiB, per run")
    parser.add_argument("--connections", default="20,100,1", help="of smtp-source, which keeps them (-d)")
    parser.add_argument("--runs", type=int, default=3, help="interleaved: each gateway once, then again")
    parser.add_argument("--gateways", default=",".join(GATEWAYS), help="some of " + ", ".join(GATEWAYS))
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on the disk to measure; not tmpfs")
    parser.add_argument("--dry", action="store_true", help="print only; keep no figures")
    parser.add_argument("--profile", action="store_true", help="instead: where Postroom's time goes, by py-spy")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measure, print the table, write bench/results.json; 1 if a run was void."""
    options = _arguments(arguments)
    counts = [int(count) for count in options.connections.split(",")]
    if results.file_system(options.folder) == "tmpfs":
        print(f"{options.folder} is in memory: name a folder on a disk with --folder")
        return 64
    try:
        if options.profile:
            with running(GATEWAYS["postroom"], options.folder) as (gateway, sink):
                print(profiling.profiled(gateway, sink, options.messages, counts[0]))
            return 0
        return _compare(options, counts, options.gateways.split(","))
    except Void as reason:
        print(f"void: {reason}")
        return 1


def _compare(options: argparse.Namespace, counts: list[int], names: list[str]) -> int:
    figures = {"surroundings": results.surroundings(options.folder), "postfix": Postfix.version(), "method": METHOD}
    runs = []
    for connections in counts:
        for number in range(1, options.runs + 1):
            for name in names:
                run = measure(GATEWAYS[name], options.folder, options.messages, connections)
                runs.append(run | {"run": number})
                print(
                    f"{connections:>4} connections, run {number}: {name:<15}{run['relayed_per_second']:>8.0f} relayed/s"
                    f"{run['cpu_us_per_message']:>8.0f} us CPU a message",
                    flush=True,
                )
    rows = medians(runs)
    for row in rows:
        if "postroom" in row and shutil.which("strace"):
            count = syncs_per_message(options.folder, options.messages, row["connections"])
            row["postroom"]["syncs_per_message"] = count
    print()
    print(table(rows, names))
    if not options.dry:
        kept = {**figures, "medians": rows, "runs": runs}
        print(f"\nwritten: {results.keep('relay', kept)}")
        page.write("relay", page.relay(kept))
    return 0


METHOD = {
    "source": "smtp-source -4 -d -s CONNECTIONS -m MESSAGES -l 4096 (connections persist, no pipelining, no TLS)",
    "sink": "smtp-sink -4 -c, one of its own for each gateway; it stays up and its counter is what counts",
    "seconds": "from the start of smtp-source to the last message at the sink",
    "cpu": "user and system of the whole process tree, ended children included, until its queue is empty and it rests",
    "order": "each gateway in turn, then all again; new folders, queue and processes for each run; 500 messages before",
    "syncs": "fsync and fdatasync, checkpoints included, counted by strace in a run that is not timed",
    "postfix": "Postfix's logs go to syslog where /dev/log is; it needs root",
    "postgresql": "a server of its own on the same disk, fsync and synchronous_commit on; its CPU and memory count",
    "postroom": "postroom serve with shipped defaults but for the listener's port; attempts and events are kept",
}
