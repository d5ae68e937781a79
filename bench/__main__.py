"""`python -m bench PART`: one part of the benchmarks (`make bench PART=relay`)."""

from __future__ import annotations

import sys

from . import durability, relay

PARTS = {"relay": relay.main, "durability": durability.main}


def main() -> int:
    """Run the part that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        print(f"usage: python -m bench {'|'.join(PARTS)} [--help]", file=sys.stderr)
        return 64
    return PARTS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    raise SystemExit(main())
