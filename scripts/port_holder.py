"""Says which process holds a TCP port, and how to get it free: `port_holder.py ADDRESS PORT`.

Only the standard library, and Python 3.11: it runs before anything is installed.
"""

from __future__ import annotations

import errno
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from postroom.diagnosis.ports import port_holders


def is_free(address: str, port: int) -> bool:
    """Whether a listener may be opened there, as the gateway opens its own."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def main(address: str, port: int) -> int:
    """Exit status: 0 when the port is free, 69 (EX_UNAVAILABLE) when it is not."""
    if is_free(address, port):
        return 0
    print(f"Port {port} on {address} is taken, so Postroom cannot listen there.", file=sys.stderr)
    found = port_holders(port)
    for pid, command in found:
        print(f"    process {pid}: {' '.join(command.split())}", file=sys.stderr)
    if not found:
        print(f"    by a process of another user; see it with: sudo ss -ltnp 'sport = :{port}'", file=sys.stderr)
    stop = f"stop it (kill {found[0][0]})" if found else "stop it"
    print(f"Either {stop}, or let Postroom listen elsewhere:", file=sys.stderr)
    listener = f'[{{"address": "{address}", "port": {port + 1}}}]'
    print(f"    POSTROOM_SMTP__LISTENERS='{listener}' make run", file=sys.stderr)
    return 69


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
