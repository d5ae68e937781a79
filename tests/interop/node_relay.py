"""npm's smtp-server as a relay, and as the witness of what other relays hand on."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import find_peer
from tests.interop.conftest import Certificates
from tests.interop.witness import Taken, Witness

LOGIN = ("mailbox", "correct horse")


@dataclass
class NodeRelay:
    """A running one: a door in clear without login, and one with a login by STARTTLS and by implicit TLS each.

    It refuses `unknown@...` by 550 and `greylisted@...` by 450.
    """

    folder: Path
    plain_port: int
    starttls_port: int
    tls_port: int
    witness: Witness = field(default_factory=Witness)

    def read(self, process: subprocess.Popen[str]) -> None:
        """Gather what it prints."""
        assert process.stdout is not None
        for line in process.stdout:
            told = json.loads(line)
            content = (self.folder / told["file"]).read_bytes()
            what = (told["connection"], told["user"], told["secure"], tuple(told["lines"]), tuple(told["recipients"]))
            self.witness.add(Taken(*what, content))


@contextmanager
def running_node_relay(folder: Path, certificates: Certificates) -> Iterator[NodeRelay]:
    """One that keeps contents in `folder`; it offers PIPELINING (not in clear), SIZE, 8BITMIME, SMTPUTF8 and DSN."""
    find_peer("smtp-server")
    order: dict[str, object] = {"folder": folder, "certificate": certificates.certificate, "key": certificates.key}
    order |= {"user": LOGIN[0], "password": LOGIN[1]}
    script = Path(__file__).with_name("smtp_server.mjs")
    command = [str(find_peer("node")), str(script), json.dumps(order, default=str)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    relay = NodeRelay(folder, *json.loads(process.stdout.readline())["ports"])
    reader = threading.Thread(target=relay.read, args=(process,))
    reader.start()
    try:
        yield relay
    finally:
        process.terminate()
        process.wait()
        reader.join()
        process.stdout.close()
