"""`python -m bench PART`: one part of the benchmarks (`make bench PART=relay`)."""

from __future__ import annotations

import signal
import sys

from . import (
    client_rate,
    durability,
    fairness,
    flights,
    hostile,
    limits,
    long_queue,
    relay,
    retention,
    routing,
    start,
    subjects,
)

PARTS = {
    "relay": relay.main,
    "durability": durability.main,
    "client": client_rate.main,
    "fairness": fairness.main,
    "flights": flights.main,
    "hostile": hostile.main,
    "limits": limits.main,
    "routing": routing.main,
    "start": start.main,
    "queue": long_queue.main,
    "retention": retention.main,
    "subjects": subjects.main,
}


def main() -> int:
    """Run the part that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        print(f"usage: python -m bench {'|'.join(PARTS)} [--help]", file=sys.stderr)
        return 64
    # So that what was started is ended, whoever ends the benchmark.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return PARTS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    raise SystemExit(main())
