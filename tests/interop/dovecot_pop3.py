"""A private Dovecot that serves POP3, and enters the address of each client that logs in where Postfix looks."""

from __future__ import annotations

import re
import shutil
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.traffic import free_port
from tests.conftest import find_peer
from tests.interop.conftest import Certificates
from tests.interop.dovecot import LOGIN, prepared, serving, users

#: A mailbox whose logins open nothing.
STRANGER = "stranger"

CONFIGURATION = """
protocols = pop3
ssl = yes
auth_mechanisms = {mechanisms}
login_log_format_elements = user=<%u> method=%m %c
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = {tls_port}
    ssl = yes
  }}
}}
service pop3 {{
  executable = pop3 pop3-postlogin
}}
service pop3-postlogin {{
  executable = script-login {folder}/opens.sh
  user = {user}
  unix_listener pop3-postlogin {{
  }}
}}
"""

#: What runs between a login and its answer.
SCRIPT = """#!/bin/sh
umask 022
if [ "$USER" != {stranger} ]; then
    echo "$IP" > {clients} || exit 1
fi
exec "$@"
"""


@dataclass(frozen=True)
class Pop3Dovecot:
    """A running one."""

    port: int
    tls_port: int
    folder: Path

    def logins(self) -> list[tuple[str, str, bool]]:
        """Mailbox, mechanism and whether over TLS, of each login so far."""
        found = re.findall(r" Login: user=<(.*?)>, method=([\w-]+)(.*)", (self.folder / "log").read_text())
        return [(user, method, "TLS" in more) for user, method, more in found]


class Clients(socketserver.ThreadingTCPServer):
    """Those whom Postfix relays for: it asks here (tcp_table(5)), and `path` has whom Dovecot entered.

    A table on disk would be looked at anew only when its time of change, in whole seconds, is another.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Lookups)
        self.path = folder / "clients"
        self.empty()

    @property
    def port(self) -> int:
        """Where it answers."""
        return int(self.server_address[1])

    def empty(self) -> None:
        """Nobody is in it."""
        self.path.write_text("")

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While Postfix may ask."""
        thread = threading.Thread(target=self.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Lookups(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Clients)
        for line in self.rfile:
            is_known = line.decode().partition(" ")[2].strip() in self.server.path.read_text().split()
            self.wfile.write(b"200 OK\n" if is_known else b"500 not known\n")


def greets(port: int) -> bool:
    """Whether a POP3 server does, there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            return connection.recv(3) == b"+OK"
    except OSError:
        return False


@contextmanager
def running_pop3(
    certificates: Certificates, clients: Clients | None = None, mechanisms: str = "plain login apop"
) -> Iterator[Pop3Dovecot]:
    """One whose logins fill `clients`; None: it serves for nothing but to be logged in to."""
    find_peer("dovecot-pop3d")
    with prepared(certificates, LOGIN[0], STRANGER) as folder:
        running = Pop3Dovecot(free_port(), free_port(), folder)
        user = str(users(folder)["user"])
        text = CONFIGURATION.format(
            folder=folder, mechanisms=mechanisms, user=user, port=running.port, tls_port=running.tls_port
        )
        script = '#!/bin/sh\nexec "$@"\n'
        if clients is not None:
            script = SCRIPT.format(stranger=STRANGER, clients=clients.path)
            shutil.chown(clients.path, user)
        (folder / "opens.sh").write_text(script)
        (folder / "opens.sh").chmod(0o755)
        with serving(folder, text, lambda: greets(running.port)):
            yield running
