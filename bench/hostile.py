"""What a hostile relay costs the account beside it: its rate, lateness and memory, and what the relay gets for it.

One gateway, a healthy account and a hostile one whose queue is full. Attack by attack, the healthy account is measured
alone and beside it, in turn. Then each attack has an account of its own, as shipped, for a while: connections, logins.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.e2e.attackers import Api

from . import page, results, retention
from .attacks import GOAL_MIB, MIB
from .gateways import MeasuredGateway, Postroom, cpu_of
from .hostile_relay import ONE_STAGE, STAGES, cells
from .process_tree import forget_peak, resident_and_peak_bytes
from .relay import running
from .traffic import SENDER, Sink, Void, send, submit, wait_until

SLOWED_PERCENT = 5.0
WAITING = 2000
RATE = 200
WARM_UP = 1000

#: Its relay lets each message come to an answer: a burst of work as an honest relay asks for too, and it ends. So these
#: two are shown beside one another, and the goal is for a time in which more than the burst happens.
REFUSES = "354 after refusals"
HONEST = "honest"

#: Accounts of the last phase are at these stages: a login that is attacked, and what comes after a good one.
LASTING_STAGES = ("AUTH", "MAIL", "RCPT")

_CLIENTS = 20
#: So many times as long as others is the load beside a relay that refuses.
_LONG = 10
_PATIENCE_SECONDS = 60
_LOGIN = {"username": "erp", "password": "secret", "allow_clear_password": True}
#: What was deferred is due again at once, so that the queue stays full of work; where each message comes to an
#: answer, as shipped: how often it is tried again is not the relay's to say.
_EAGER, _AS_SHIPPED = {"retry_schedule": "1s"}, {"retry_schedule": ""}

Counts = dict[str, dict[str, int]]


class HostileRelay:
    """The process, and its ports by attack and stage."""

    def __enter__(self) -> HostileRelay:
        command = [sys.executable, "-m", "bench.hostile_relay"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ports: dict[str, int] = self._read()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Void("the hostile relay has ended")
        return json.loads(line)

    def counts(self, line: str = "") -> Counts:
        """What each port saw since the start; with the line `leave` it hangs up first."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        counts: Counts = self._read()
        return counts


@dataclass(frozen=True, slots=True)
class Run:
    """Messages a second, CPU of the gateway in us a message, and MiB by which its peak exceeded what was resident."""

    rate: float
    cpu: float
    grown: float


@dataclass
class Found:
    """What came of one attack, alone and beside it: rates (and by stage their ratio), CPU in us for each healthy
    message, lateness in ms, growth in MiB."""

    ratios: dict[str, list[float]] = field(default_factory=dict)
    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    cpu_alone: list[float] = field(default_factory=list)
    cpu_beside: list[float] = field(default_factory=list)
    late_alone: list[float] = field(default_factory=list)
    late_beside: list[float] = field(default_factory=list)
    grown_alone: list[float] = field(default_factory=list)
    grown_beside: list[float] = field(default_factory=list)


class Bench:
    """A gateway with both accounts."""

    def __init__(self, gateway: Postroom, sink: Sink, relay: HostileRelay, options: argparse.Namespace) -> None:
        self._gateway = gateway
        self._sink = sink
        self._relay = relay
        self._options = options
        self._api = Api(gateway.database.with_name("control.sock"))
        self.found: dict[str, Found] = {}

    def prepare(self) -> None:
        """The hostile account with its queue, then mail for the healthy one, so that all is warm."""
        self._api.ask("PATCH", "accounts/relay", {"sender_patterns": [SENDER]})
        self._add("hostile", self._relay.ports["stall at greeting"], enabled=False, **_EAGER)
        send(self._gateway.port, self._sink, WARM_UP, _CLIENTS)
        self._refill()

    def _add(self, name: str, port: int, **fields: Any) -> None:
        grant = {"application": "local", "senders": ["*"]}
        account = {"name": name, "host": "127.0.0.1", "port": port, "security": "none", "grant": grant}
        sender = {"sender_patterns": [f"{name}@hostile.example"], "fallback": "none"}
        self._api.ask("POST", "accounts", account | sender | _LOGIN | fields)

    def _refill(self) -> None:
        """All that the hostile account may have waiting, due at once."""
        self._edit(enabled=False)
        missing = self._options.waiting - self._gateway.waiting()
        if missing > 0:
            submit(self._gateway.port, missing, _CLIENTS, sender="hostile@hostile.example")
        self._api.ask("POST", "queue/retry", {"account": "hostile"})

    def _edit(self, **fields: Any) -> None:
        """Any edit wakes the account: what was known of its relay no longer holds."""
        self._api.ask("PATCH", "accounts/hostile", fields)

    def _begin(self, cell: str) -> None:
        """The attack runs when this returns. What the last one broke off may be known only after the edit, so that the
        account sleeps: then it is edited again."""
        if cell.partition(" at ")[0] in ONE_STAGE:
            self._refill()
        before = self._relay.counts()[cell]["connections"]
        end = time.monotonic() + _PATIENCE_SECONDS
        while self._relay.counts()[cell]["connections"] == before:
            if time.monotonic() > end:
                raise Void(f"the relay was not tried: {cell}")
            self._edit(enabled=True, port=self._relay.ports[cell], description=str(time.monotonic()))
            with suppress(Void):
                wait_until(lambda: self._relay.counts()[cell]["connections"] > before, 1, cell)

    @contextmanager
    def _under(self, cell: str | None) -> Iterator[list[float]]:
        """Inside, the attack runs, or none; afterwards the list has the MiB of growth."""
        grown: list[float] = []
        if cell is None:
            self._edit(enabled=False)
        else:
            self._begin(cell)
        forget_peak(self._gateway.pid)
        resident, _ = resident_and_peak_bytes(self._gateway.pid)
        yield grown
        _, peak = resident_and_peak_bytes(self._gateway.pid)
        if cell is not None:
            # What is being sent holds its connection until its reply is due, whatever is edited.
            self._edit(enabled=False)
            self._relay.counts("leave")
        if not peak:
            raise Void(f"the gateway has ended: {cell}")
        grown.append((peak - resident) / MIB)

    def _fast(self, cell: str | None, times: int = 1) -> Run:
        """The healthy account, as fast as it goes."""
        with self._under(cell) as grown:
            messages, cpu = self._options.messages * times, cpu_of(self._gateway)
            seconds = send(self._gateway.port, self._sink, messages, _CLIENTS).relayed_seconds
            cpu = cpu_of(self._gateway) - cpu
        return Run(messages / seconds, cpu * 1e6 / messages, grown[0])

    def _late(self, cell: str | None, seconds: float) -> tuple[float, float]:
        """By how many ms a load that leaves air is behind at the worst moment, and the growth."""
        with self._under(cell) as grown:
            most = asyncio.run(self._behind(seconds))
        return most / RATE * 1000, grown[0]

    async def _behind(self, seconds: float) -> int:
        """Messages with a 250 that the sink did not yet have, at most."""
        waits: list[float] = []
        before, most = self._sink.count(), 0
        offering = retention.offer(self._gateway.port, seconds, RATE, waits, evenly=True)
        flow = asyncio.create_task(offering)
        while not flow.done():
            most = max(most, len(waits) - (self._sink.count() - before))
            await asyncio.sleep(0.005)
        await flow
        await asyncio.to_thread(wait_until, lambda: self._sink.count() - before >= len(waits), 60, "all are relayed")
        return most

    def measure(self, attack: str, stage: str, *, alone_first: bool) -> None:
        """One attack at one stage: both loads, alone and beside it."""
        cell, found = f"{attack} at {stage}", self.found.setdefault(attack, Found())
        self._edit(**_AS_SHIPPED if attack in ONE_STAGE else _EAGER)
        order: tuple[str | None, ...] = (None, cell) if alone_first else (cell, None)
        runs = {one: self._fast(one) for one in order}
        late = {one: self._late(one, self._options.seconds) for one in order}
        alone, beside = runs[None], runs[cell]
        found.ratios.setdefault(stage, []).append(beside.rate / alone.rate)
        found.alone.append(alone.rate)
        found.beside.append(beside.rate)
        found.cpu_alone.append(alone.cpu)
        found.cpu_beside.append(beside.cpu)
        found.late_alone.append(late[None][0])
        found.late_beside.append(late[cell][0])
        found.grown_alone.append(max(alone.grown, late[None][1]))
        found.grown_beside.append(max(beside.grown, late[cell][1]))
        print(f"{cell:<32}{alone.rate:>7.0f}/s alone, {beside.rate:.0f}/s beside it; CPU {alone.cpu:.0f} and"
              f" {beside.cpu:.0f} us; {late[None][0]:.0f} and {late[cell][0]:.0f} ms late", flush=True)  # fmt: skip

    def refusing(self) -> dict[str, Any]:
        """All that waits is refused once, within a load that lasts some ten times as long."""
        self._edit(**_AS_SHIPPED)
        cell, rates = f"{REFUSES} at {ONE_STAGE[REFUSES]}", dict[str | None, list[float]]()
        before = self._relay.counts()[cell]["envelopes"]
        for one in (None, cell, cell, None):
            rates.setdefault(one, []).append(self._fast(one, _LONG).rate)
        refused = self._relay.counts()[cell]["envelopes"] - before
        alone, beside = (statistics.mean(rates[one]) for one in (None, cell))
        slowed = round(100 * (1 - beside / alone), 1)
        figures = {"messages": self._options.messages * _LONG, "refused": refused // 2, "alone": round(alone, 1)}
        return figures | {"beside": round(beside, 1), "slowed_percent": slowed, "verdict": _verdict(slowed, 0.0)}

    def last(self) -> dict[str, Any]:
        """Each attack on an account of its own, as shipped, all at once for a while: what the relays saw a minute."""
        lasting = [(attack, stage) for attack, stage in cells() if attack not in ONE_STAGE and stage in LASTING_STAGES]
        for number, (attack, stage) in enumerate(lasting):
            self._add(f"h{number}", self._relay.ports[f"{attack} at {stage}"], enabled=False)
            submit(self._gateway.port, 50, 5, sender=f"h{number}@hostile.example")
        late_alone, _ = self._late(None, self._options.lasting)
        before, began = self._relay.counts(), time.monotonic()
        for number in range(len(lasting)):
            self._api.ask("PATCH", f"accounts/h{number}", {"enabled": True})
        late, grown = self._late(None, self._options.lasting)
        after, minutes = self._relay.counts(), (time.monotonic() - began) / 60
        seen = []
        for attack, stage in lasting:
            row: dict[str, Any] = {"attack": attack, "stage": stage}
            for what in ("connections", "logins"):
                more = after[f"{attack} at {stage}"][what] - before[f"{attack} at {stage}"][what]
                row[f"{what}_a_minute"] = round(more / minutes, 1)
            seen.append(row)
        figures = {"accounts": len(lasting), "seconds": self._options.lasting, "late_alone_ms": round(late_alone, 1)}
        return figures | {"late_ms": round(late, 1), "grown_mib": round(grown, 1), "seen": seen}


def _slowed(ratios: list[float]) -> float:
    return round(100 * (1 - statistics.median(ratios)), 1)


def _uncertain(ratios: list[float]) -> float:
    """Half of the interval in which the true figure is with 95 %, as far as the runs of one machine tell."""
    if len(ratios) < 2:
        return 100.0
    return round(100 * 1.96 * statistics.stdev(ratios) / math.sqrt(len(ratios)), 1)


def _verdict(slowed: float, uncertain: float) -> str:
    """`open`: the runs are too few, or the machine too restless, to tell."""
    if slowed < SLOWED_PERCENT:
        return "met"
    return "open" if slowed - uncertain < SLOWED_PERCENT else "missed"


def whole(found: dict[str, Found]) -> dict[str, Any]:
    """All attacks together, but for those that let messages come to an answer."""
    every = [ratio for attack, one in found.items() if attack not in ONE_STAGE for ratio in chain(*one.ratios.values())]
    slowed, uncertain = _slowed(every), _uncertain(every)
    return {
        "runs": len(every),
        "slowed_percent": slowed,
        "uncertain": uncertain,
        "verdict": _verdict(slowed, uncertain),
    }


def rows(found: dict[str, Found], counts: Counts) -> list[dict[str, Any]]:
    """For each attack its figures, and whether they are as asked."""
    made = []
    for attack, one in found.items():
        every = [ratio for ratios in one.ratios.values() for ratio in ratios]
        worst = max(one.ratios, key=lambda stage: _slowed(one.ratios[stage]))
        row: dict[str, Any] = {"attack": attack, "runs": len(every), "slowed_percent": _slowed(every)}
        row |= {"worst_stage": worst, "worst_percent": _slowed(one.ratios[worst]), "uncertain": _uncertain(every)}
        for name in ("alone", "beside", "cpu_alone", "cpu_beside", "late_alone", "late_beside"):
            row[name] = round(statistics.median(getattr(one, name)), 1)
        for name in ("late_alone", "late_beside", "grown_alone", "grown_beside"):
            row[f"most_{name}"] = round(max(getattr(one, name)), 1)
        ports = [counts[name] for name in counts if name.startswith(f"{attack} at ")]
        row["connections"] = sum(port["connections"] for port in ports)
        row["kib"] = round(sum(port["octets"] for port in ports) / 1024)
        row["most_kib_of_one"] = round(max(port["most"] for port in ports) / 1024, 1)
        if row["most_grown_beside"] > GOAL_MIB:
            row["verdict"] = "missed"
        elif attack not in ONE_STAGE:
            row["verdict"] = _verdict(row["slowed_percent"], row["uncertain"])
        made.append(row)
    return made


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench PART=hostile", description=__doc__)
    parser.add_argument("--messages", type=int, default=3000, help="of 4 KiB, as fast as they go, per run")
    parser.add_argument("--seconds", type=float, default=0.5, help=f"of {RATE} messages a second, per run")
    parser.add_argument("--rounds", type=int, default=2, help="of all attacks at all stages, alone and beside each")
    parser.add_argument("--limit", type=float, default=400, help="seconds after which only the first round is finished")
    parser.add_argument("--stages", default=",".join(STAGES), help="some of them")
    parser.add_argument("--waiting", type=int, default=WAITING, help="messages for the hostile relay")
    parser.add_argument("--lasting", type=float, default=60, help="seconds of all attacks at once, and without")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on the disk to measure; not tmpfs")
    parser.add_argument("--dry", action="store_true", help="print only; keep no figures")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All of it, on one gateway.

    Raises:
        Void: the gateway has ended, or mail did not come through.
    """
    made: list[Postroom] = []

    def make(inside: Path, relay_port: int) -> MeasuredGateway:
        made.append(Postroom(inside, relay_port))
        return made[0]

    stages = options.stages.split(",")
    wanted = [(attack, stage) for attack, stage in cells() if attack in ONE_STAGE or stage in stages]
    wanted += [cell for cell in wanted if cell[0] in ONE_STAGE] * (len(stages) - 1)  # each attack as often
    with HostileRelay() as relay, running(make, options.folder) as (_, sink):
        bench = Bench(made[0], sink, relay, options)
        bench.prepare()
        end = time.monotonic() + options.limit
        for number in range(options.rounds):
            for place, (attack, stage) in enumerate(wanted):
                if number and time.monotonic() > end:
                    break
                # Which comes first changes, so that what the machine does hits both.
                bench.measure(attack, stage, alone_first=(number + place + place // 2) % 2 == 0)
        counts = relay.counts()
        goals = {"waiting": options.waiting, "rate": RATE, "goal": SLOWED_PERCENT, "goal_mib": GOAL_MIB}
        found = {"whole": whole(bench.found), "rows": rows(bench.found, counts), "refusing": bench.refusing()}
        return goals | found | {"lasting": bench.last()}


def main(arguments: list[str]) -> int:
    """Measure, print and keep the figures; 1 if the run was void, 2 if a goal was missed."""
    options = _arguments(arguments)
    if unknown := set(options.stages.split(",")) - set(STAGES):
        print(f"there is no stage {', '.join(sorted(unknown))}: {', '.join(STAGES)}")
        return 64
    surroundings = results.surroundings(options.folder)
    try:
        kept = {"surroundings": surroundings, **measure(options)}
    except Void as reason:
        print(f"void: {reason}")
        return 1
    print("\n" + "\n".join(page.hostile(kept)))
    if not options.dry:
        print(f"\nwritten: {results.keep('hostile', kept)}")
        page.write("hostile", page.hostile(kept))
    judged = [kept["whole"], kept["refusing"], *kept["rows"]]
    return 2 if "missed" in [one.get("verdict") for one in judged] else 0
