"""The times and shares that the reliability rules name: parsing, slow clients, a dead relay, memory under attack."""

from __future__ import annotations

import argparse
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from postroom.mime.address import parse_mailboxes
from postroom.mime.head import edit, scan
from postroom.queue.intake import REMOVED

from . import attacks, page, results
from .gateways import MeasuredGateway, Postroom, rest
from .relay import running
from .slow_clients import Slow, half_a_command, trickled_content, worst_greeting_seconds
from .traffic import Sink, Void, send, submit

PARTS = ("parsing", "greeting", "dead-relay", "memory")

ADDRESSES_SECONDS = 1.0
HEADER_SECONDS = 2.0
GREETING_SECONDS = 1.0
SLOWED_PERCENT = 5.0

ADDRESSES = 200_000
HEADER_OCTETS = 5_000_000

#: What waits for the dead relay, and what is sent to the healthy one before the clock starts.
BACKLOG = 2000
WARM_UP = 500


def _row(what: str, value: float, unit: str, goal: float) -> dict[str, Any]:
    return {"what": what, "value": round(value, 4), "unit": unit, "goal": goal, "met": value < goal}


def _longest(work: Callable[[], object], times: int = 3) -> float:
    """Seconds of the slowest of some runs."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return max(spent)


def _address_lists() -> dict[str, bytes]:
    numbers = range(ADDRESSES)
    return {
        "bare": b",\r\n ".join(b"user%d@example.org" % n for n in numbers),
        "with names": b",\r\n ".join(b'"User, No. %d" <user%d@example.org>' % (n, n) for n in numbers),
        "in groups, with comments": b",\r\n ".join(b"g%d: (one) user%d@example.org;" % (n, n) for n in numbers),
    }


def _headers() -> dict[str, bytes]:
    def filled(line: bytes, first: bytes = b"") -> bytes:
        return first + line * (HEADER_OCTETS // len(line)) + b"\r\n"

    return {
        "short fields": filled(b"X-Field: a value\r\n"),
        "one folded field": filled(b" folded, and folded again\r\n", b"To: a\r\n"),
        "fields that are removed": filled(b"Bcc: <someone@example.org>\r\n"),
        "lines that are no fields": filled(b"no field at all\r\n", b"Subject: broken\r\n"),
        "one line": filled(b"x", b"Subject: "),
    }


def _edited(head: bytes) -> None:
    scan(head)
    edit(head, prepend=b"Received: here\r\n", remove=REMOVED, append=b"Date: now\r\n")


def parsing() -> list[dict[str, Any]]:
    """Address lists and headers; the slowest of three runs each."""
    rows = []
    for kind, value in _address_lists().items():
        if len(parse_mailboxes(value)) != ADDRESSES:
            raise Void(f"{ADDRESSES} addresses {kind} were not read as so many")
        seconds = _longest(lambda value=value: parse_mailboxes(value))  # type: ignore[misc]
        rows.append(_row(f"parsing {ADDRESSES:,} addresses, {kind}", seconds, "s", ADDRESSES_SECONDS))
    for kind, head in _headers().items():
        seconds = _longest(lambda head=head: _edited(head))  # type: ignore[misc]
        rows.append(_row(f"scan and edit of a header of 5 MB: {kind}", seconds, "s", HEADER_SECONDS))
    return rows


def _postroom(folder: Path, relay_port: int) -> MeasuredGateway:
    return Postroom(folder, relay_port)


def greeting(folder: Path) -> list[dict[str, Any]]:
    """How soon a new client is greeted beside slow ones."""
    kinds: dict[str, Slow] = {"that hold half a command": half_a_command, "that trickle content": trickled_content}
    rows = []
    for kind, slow in kinds.items():
        with running(_postroom, folder) as (gateway, sink):
            send(gateway.port, sink, WARM_UP, 10)
            seconds = worst_greeting_seconds(gateway.port, attacks.SLOW_CLIENTS, slow)
        what = f"greeting of a new client beside {attacks.SLOW_CLIENTS} {kind}"
        rows.append(_row(what, seconds, "s", GREETING_SECONDS))
    return rows


def _healthy_rate(folder: Path, messages: int, *, beside_dead: bool) -> float:
    """Messages a second through an account that works, alone or beside one whose relay is mute."""
    made: list[Postroom] = []

    def make(inside: Path, relay_port: int) -> MeasuredGateway:
        made.append(Postroom(inside, relay_port))
        return made[0]

    # The kernel takes connections for a listener that nobody serves.
    with socket.create_server(("127.0.0.1", 0), backlog=100) as dead, running(make, folder) as (gateway, sink):
        if beside_dead:
            _add_dead(made[0], int(dead.getsockname()[1]))
        send(gateway.port, sink, WARM_UP, 20)
        rest(gateway)
        rate = _rate(gateway, sink, messages)
        if beside_dead:
            dead.setblocking(False)
            try:
                dead.accept()[0].close()
            except BlockingIOError:
                raise Void("the gateway did not try the dead relay") from None
            if gateway.waiting() < BACKLOG:
                raise Void(f"of {BACKLOG} messages for the dead relay only {gateway.waiting()} wait")
    return rate


def _rate(gateway: MeasuredGateway, sink: Sink, messages: int) -> float:
    return round(messages / send(gateway.port, sink, messages, 20).relayed_seconds, 1)


def _add_dead(gateway: Postroom, port: int) -> None:
    """The account `dead` with its backlog, which it gets while it stands above the healthy one."""
    at = ["--host", "127.0.0.1", "--port", str(port), "--security", "none"]
    gateway.command("accounts", "add", "dead", *at, "--for", "local", "--allow-sender", "*")
    gateway.command("accounts", "edit", "dead", "--position", "0")
    submit(gateway.port, BACKLOG, 20)
    gateway.command("accounts", "edit", "relay", "--position", "0")


def dead_relay(folder: Path, messages: int, rounds: int) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """By how much a dead relay slows the healthy account: the row, and all rates."""
    rates: dict[str, list[float]] = {"alone": [], "beside_dead": []}
    for number in range(rounds):
        # Which comes first changes, so that what the disk does hits both.
        for beside in (False, True) if number % 2 == 0 else (True, False):
            name = "beside_dead" if beside else "alone"
            rates[name].append(_healthy_rate(folder, messages, beside_dead=beside))
            print(f"round {number + 1}: {name:<12}{rates[name][-1]:>8.0f} relayed/s", flush=True)
    alone, beside_dead = (statistics.median(rates[name]) for name in ("alone", "beside_dead"))
    return _row("loss of rate beside a dead relay", 100 * (1 - beside_dead / alone), "%", SLOWED_PERCENT), rates


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench PART=limits", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000, help="of 4 KiB, per run beside the dead relay")
    parser.add_argument("--rounds", type=int, default=5, help="of the dead relay: with it and without, interleaved")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of " + ", ".join(PARTS) + "; then none is kept")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on the disk to measure; not tmpfs")
    parser.add_argument("--dry", action="store_true", help="print only; keep no figures")
    return parser.parse_args(arguments)


def _measure(options: argparse.Namespace, parts: list[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        "surroundings": results.surroundings(options.folder), "times": [], "slowed": {}, "memory": []
    }  # fmt: skip
    if "parsing" in parts:
        kept["times"] += parsing()
    if "greeting" in parts:
        kept["times"] += greeting(options.folder)
    for row in kept["times"]:
        print(f"{row['what']}: {row['value']:.3f} s", flush=True)
    if "dead-relay" in parts:
        row, kept["slowed"] = dead_relay(options.folder, options.messages, options.rounds)
        kept["times"].append(row)
    for attack in attacks.ATTACKS if "memory" in parts else ():
        kept["memory"].append(row := attacks.growth(attack, options.folder))
        print(f"{row['what']}: {row['value']:+.1f} MiB; {row['seen']}", flush=True)
    return kept


def main(arguments: list[str]) -> int:
    """Measure, print, keep the figures; 1 if a run was void."""
    options = _arguments(arguments)
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        print(f"there is no part {', '.join(sorted(unknown))}: {', '.join(PARTS)}")
        return 64
    try:
        kept = _measure(options, parts)
    except Void as reason:
        print(f"void: {reason}")
        return 1
    print()
    print("\n".join(page.limits(kept)))
    if not options.dry and set(parts) == set(PARTS):
        print(f"\nwritten: {results.keep('limits', kept)}")
        page.write("limits", page.limits(kept))
    return 0
