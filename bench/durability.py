"""What durability costs: Postroom as shipped beside itself with fsync made empty by libeatmydata (DESIGN section 4)."""

from __future__ import annotations

import argparse
import shutil
import statistics
from pathlib import Path

from . import page, results
from .gateways import MeasuredGateway, Postroom
from .relay import measure
from .traffic import Void


def _durable(folder: Path, relay_port: int) -> MeasuredGateway:
    return Postroom(folder, relay_port)


def _not_durable(folder: Path, relay_port: int) -> MeasuredGateway:
    gateway = Postroom(folder, relay_port, prefix=("eatmydata",))
    gateway.name = "postroom-without-fsync"
    return gateway


def main(arguments: list[str]) -> int:
    """Measure both, interleaved; print and keep the share of the rate that durability leaves. 1 if a run was void."""
    parser = argparse.ArgumentParser(prog="make bench PART=durability", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000, help="of 4 KiB, per run")
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on the disk to measure; not tmpfs")
    options = parser.parse_args(arguments)
    if not shutil.which("eatmydata"):
        print("eatmydata is not installed (apt-get install eatmydata)")
        return 69
    surroundings = results.surroundings(options.folder)
    runs = []
    try:
        for number in range(1, options.runs + 1):
            for factory in (_durable, _not_durable):
                run = measure(factory, options.folder, options.messages, options.connections)
                runs.append(run | {"run": number})
                print(f"run {number}: {run['gateway']:<24}{run['relayed_per_second']:>8.0f} relayed/s", flush=True)
    except Void as reason:
        print(f"void: {reason}")
        return 1
    rates = {
        name: statistics.median(run["relayed_per_second"] for run in runs if run["gateway"] == name)
        for name in ("postroom", "postroom-without-fsync")
    }
    share = rates["postroom"] / rates["postroom-without-fsync"]
    print(f"\ndurability leaves {100 * share:.0f} % of the rate without it (at least 75 % is asked)")
    kept = {"surroundings": surroundings, "medians": rates, "share": round(share, 3), "runs": runs}
    print(f"written: {results.keep('durability', kept)}")
    page.write("durability", page.durability(kept))
    return 0
