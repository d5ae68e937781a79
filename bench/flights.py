"""Round trips a message on one connection over a line of 50 ms to Postfix, beside other clients (SPEC section 11)."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from . import page, results
from .clients import CLIENTS, PROJECT, Client, present
from .gateways import CONFIGURATIONS, MeasuredGateway, Postfix, Postroom
from .relay import GATEWAYS, running
from .traffic import Sink, Void, answers, free_port, send, wait_until

#: Round trips a message, at most.
GOAL = 1.2

DELAY_MS = 25.0


class Line:
    """A delay proxy as a process between a port of its own and `target_port`; `flights` once it has ended."""

    def __init__(self, target_port: int, delay_ms: float = DELAY_MS) -> None:
        self.port = free_port()
        self.flights: list[dict[str, Any]] = []
        self._command = [sys.executable, "-m", "bench.delay_proxy", "--port", str(self.port)]
        self._command += ["--to", str(target_port), "--delay-ms", str(delay_ms)]

    def __enter__(self) -> Line:
        self._process = subprocess.Popen(self._command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: answers(self.port), 20, "the server greets over the line")
        except Void:
            self._process.kill()
            self._process.communicate()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        try:
            said, _ = self._process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise Void("the delay proxy did not end") from None
        # Those without a transaction asked whether it greets.
        self.flights = [one for one in json.loads(said) if one["transactions"]]


def over_the_line(name: str, far_port: int, messages: int, use: Callable[[int], None]) -> dict[str, Any]:
    """`use` is given the port of a line to `far_port` and returns once `messages` have arrived; the flights it took."""
    with Line(far_port) as line:
        use(line.port)
    taken = sum(one["transactions"] for one in line.flights)
    seconds = sum(one["seconds"] for one in line.flights)
    if not seconds:
        raise Void(f"{name} sent nothing over the line")
    return {
        "client": name,
        "messages": messages,
        "connections": len(line.flights),
        "flights_per_message": round(taken / messages, 3),
        "flights": {key: sum(one[key] for one in line.flights) for key in ("opening", "transactions", "closing")},
        "all_flights_per_message": round(
            sum(one[key] for one in line.flights for key in ("opening", "transactions", "closing")) / messages, 3
        ),
        "messages_per_second": round(messages / seconds, 2),
        "round_trips_of_time_per_message": round(seconds / messages / (2 * DELAY_MS / 1000), 3),
    }


def of_client(client: Client, far_port: int, sink: Sink, messages: int) -> dict[str, Any]:
    """A client on one connection.

    Raises:
        Void: it failed, or the sink has not counted exactly what was sent.
    """

    def use(port: int) -> None:
        before = sink.count()
        client.run(port, connections=1, messages=messages, warm_up=0)
        wait_until(lambda: sink.count() - before >= messages, 60, f"the sink has {messages} of {client.name}")
        if sink.count() - before != messages:
            raise Void(f"{client.name}: {sink.count() - before} counted at the sink, {messages} sent")

    return over_the_line(client.name, far_port, messages, use)


def of_gateway(
    make: Callable[[Path, int], MeasuredGateway], name: str, folder: Path, far_port: int, sink: Sink, messages: int
) -> dict[str, Any]:
    """A gateway with one connection to its relay; it is loaded at once, without a delay.

    Raises:
        Void: see `send`.
    """

    def use(port: int) -> None:
        gateway = make(folder, port)
        try:
            gateway.start()
            send(gateway.port, sink, messages, 10, patience_seconds=60 + messages)
            wait_until(lambda: gateway.waiting() == 0, 20, f"{name} has an empty queue")
        finally:
            gateway.stop()

    return over_the_line(name, far_port, messages, use)


def _postfix(folder: Path, relay_port: int) -> MeasuredGateway:
    return Postfix(CONFIGURATIONS / "one-connection.cf", folder, relay_port)


def _postroom(folder: Path, relay_port: int) -> MeasuredGateway:
    return Postroom(folder, relay_port, connections=1)


def main(arguments: list[str]) -> int:
    """Measure, print, keep the figures; 1 if a run was void."""
    parser = argparse.ArgumentParser(prog="make bench PART=flights", description=__doc__)
    parser.add_argument(
        "--messages", type=int, default=100, help="of 4 KiB, per client; over 100 the gateway connects again"
    )
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for Postfix and the gateway")
    parser.add_argument("--dry", action="store_true", help="print only; keep no figures")
    options = parser.parse_args(arguments)
    clients, absent = present(tuple(client for client in CLIENTS if client != Client("aiosmtplib", "uvloop")))
    rows = []
    try:
        kept: dict[str, Any] = {"surroundings": results.surroundings(options.folder), "postfix": Postfix.version()}
        with running(GATEWAYS["postfix-tuned"], options.folder) as (far, sink):
            folder = sink.folder
            for client in clients:
                rows.append(of_client(client, far.port, sink, options.messages))
                print(_line(rows[-1]), flush=True)
            for name, make in (("postfix's own client", _postfix), ("postroom, the whole gateway", _postroom)):
                rows.append(of_gateway(make, name, folder, far.port, sink, options.messages))
                print(_line(rows[-1]), flush=True)
    except Void as reason:
        print(f"void: {reason}")
        return 1
    for row in rows:
        if row["client"].startswith("postroom"):
            row |= {"goal": GOAL, "met": row["flights_per_message"] <= GOAL}
    versions = {client.name: client.version() for client in clients}
    kept |= {"round_trip_ms": 2 * DELAY_MS, "versions": versions, "absent": absent, "rows": rows}
    print()
    print("\n".join(page.flights(kept)))
    if not options.dry:
        print(f"\nwritten: {results.keep('flights', kept)}")
        page.write("flights", page.flights(kept))
    return 0


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['client']:<30}{row['flights_per_message']:>7.2f} flights a message"
        f"{row['messages_per_second']:>8.1f}/s on {row['connections']} connection(s)"
    )
