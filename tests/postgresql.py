"""A PostgreSQL of the tests' own: a cluster in a temporary folder, on a Unix socket and a loopback port."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from postroom.store.migrations import migrate
from postroom.store.postgresql import connect_writer

#: Debian keeps the server's programs out of the PATH, by version.
DEBIAN = Path("/usr/lib/postgresql")
SECONDS = 60
PASSWORD = "hunter2-of-the-database"

_CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
max_connections = {connections}
shared_buffers = {shared_buffers}
logging_collector = off
"""


def programs() -> Path | None:
    """The folder with `initdb`, of the newest version; None where no server is installed."""
    found = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0)
    if found:
        return found[-1].parent
    elsewhere = shutil.which("initdb")
    return Path(elsewhere).resolve().parent if elsewhere else None


@dataclass
class Cluster:
    """A running server; `port` as it listens on 127.0.0.1."""

    folder: Path
    port: int
    bin: Path
    connections: int = 60
    shared_buffers: str = "16MB"
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _template: str = ""

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One of its programs, as a user that is not root: the server refuses to be."""
        command = [str(self.bin / program), *arguments]
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            command = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", *command]
        done = subprocess.run(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{program} ended with {done.returncode}: {done.stdout}")
        return done

    @property
    def pid(self) -> int:
        """The process that all others of it come from."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    @property
    def data(self) -> Path:
        """The cluster's own folder."""
        return self.folder / "data"

    def make(self) -> None:
        """Make it; the user `postroom` owns databases and has a password."""
        if os.geteuid() == 0:
            shutil.chown(self.folder, "nobody")
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if os.geteuid() == 0:
            shutil.chown(secret, "nobody")
        self._run(
            "initdb", "-D", str(self.data), "-U", "postroom", "-E", "UTF8", "--locale=C", "--auth=scram-sha-256",
            f"--pwfile={secret}", "--no-sync",
        )  # fmt: skip
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(
                _CONFIGURATION.format(
                    port=self.port, folder=self.folder, connections=self.connections, shared_buffers=self.shared_buffers
                )
            )

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        log = str(self.folder / "log")
        self._run("pg_ctl", "start", "-D", str(self.data), "-w", "-t", str(SECONDS), "-s", "-l", log)

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; `immediate` is what a crash leaves."""
        self._run("pg_ctl", "stop", "-D", str(self.data), "-m", mode, "-w", "-s", check=False)

    def url(self, database: str) -> str:
        """Where `database` is."""
        return f"postgresql://postroom:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def query(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement outside of any transaction; its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def new_database(self, template: str = "template0") -> str:
        """The URL of a fresh database."""
        name = f"postroom_{next(self._numbers)}"
        self.query(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def new_store(self) -> str:
        """The URL of a database with empty tables: a copy, as that is quicker than migrating each."""
        if not self._template:
            url = self.new_database()
            with closing(connect_writer(url, "SELECT 1", lambda: None)) as raw:
                migrate(raw)
            self._template = url.rpartition("/")[2]
        return self.new_database(self._template)


@contextmanager
def running(port: int, connections: int = 60) -> Iterator[Cluster]:
    """A new cluster, removed at the end. Its folder's name is short: that of a Unix socket has 107 octets at most."""
    found = programs()
    assert found is not None
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    cluster = Cluster(folder, port, found, connections)
    try:
        cluster.make()
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)
