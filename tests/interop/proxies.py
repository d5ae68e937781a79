"""Private proxies on loopback: Dante (SOCKS4, SOCKS5), OpenSSH's -D (SOCKS4a, SOCKS5), Squid (CONNECT).

Each knows a name that nobody else knows, by a hosts file of its own, and Dante a user that is nobody's on this machine.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.traffic import free_port, wait_until
from tests.conftest import find_peer

#: The name of 127.0.0.1 that the proxies alone know.
HIDDEN_NAME = "relay.behind-the-proxy.test"

#: Whence Dante and Squid connect.
OUTSIDE = "127.0.0.9"

USER, PASSWORD = "ann", "correct horse"

#: That password, as `openssl passwd -6 -salt postroomtest` writes it.
_HASH = "$6$postroomtest$5Vrhws7QFHyJ9UmTEjib96DOIopFddlagsbBQE7HNXVc5eXqRqnTY80Y0X7v0pqkY6Q85XnHgBKinQ4eOVIbs."

_DANTE = """
logoutput: {folder}/log
internal: 127.0.0.1 port = {port}
external: {outside}
socksmethod: {methods}
clientmethod: none
user.privileged: {privileged}
user.unprivileged: {unprivileged}
client pass {{
  from: 127.0.0.0/8 to: 0.0.0.0/0
  log: connect error
}}
socks block {{
  from: 0.0.0.0/0 to: 0.0.0.0/0 port = 9
  command: connect
  log: connect error
}}
socks pass {{
  from: 0.0.0.0/0 to: 0.0.0.0/0
  command: connect
  log: connect error
}}
"""

_SQUID = """
http_port 127.0.0.1:{port}
tcp_outgoing_address {outside}
hosts_file {folder}/hosts
dns_nameservers 127.0.0.1
dns_timeout 1 second
connect_timeout 5 seconds
pid_filename none
cache_log {folder}/cache.log
logformat told %un %Ss/%03>Hs %rm %ru %<a
access_log stdio:{folder}/log told
cache deny all
pinger_enable off
visible_hostname squid.test
shutdown_lifetime 0 seconds
{logins}
acl forbidden port 9
http_access deny forbidden
http_access allow {allowed}
http_access deny all
"""

_HELPERS = Path("/usr/lib/squid")
_NTLM = f"{_HELPERS}/ntlm_fake_auth"

#: Squid's side of each login.
LOGINS = {
    "": "",
    "basic": f"auth_param basic program {_HELPERS}/basic_ncsa_auth {{folder}}/users\nauth_param basic realm of a test",
    "ntlm": f"auth_param ntlm program {_NTLM}",
    "negotiate": f"auth_param negotiate program {_HELPERS}/negotiate_wrapper_auth --ntlm {_NTLM} --kerberos /bin/false",
}

_SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
LogLevel DEBUG1
"""


@dataclass
class RunningProxy:
    """Its port, and what it wrote down of those who came."""

    port: int
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def log(self) -> str:
        """Its log so far."""
        path = self.folder / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def wait_for(self, pattern: str) -> None:
        """Until its log says so."""
        wait_until(lambda: re.search(pattern, self.log()) is not None, 30, f"the proxy writes {pattern}")

    def start(self, command: Sequence[str | Path], port: int, **environment: str) -> None:
        """A program of it, until it listens."""
        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=dict(os.environ) | environment, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        wait_until(lambda: _listens(port) or process.poll() is not None, 30, f"{command[0]} listens")
        assert process.poll() is None, (self.folder / "output").read_text() + self.log()


@contextmanager
def _proxy(port: int) -> Iterator[RunningProxy]:
    folder = Path(tempfile.mkdtemp(prefix="postroom-proxy-"))
    folder.chmod(0o755)  # its other users must get through; pytest's folders are closed
    (folder / "hosts").write_text(f"127.0.0.1 {HIDDEN_NAME}\n")
    running = RunningProxy(port, folder)
    try:
        yield running
    finally:
        for process in reversed(running.processes):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        shutil.rmtree(folder)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError:
        return False
    return True


@contextmanager
def running_dante(*methods: str) -> Iterator[RunningProxy]:
    """Dante, which takes these methods of login: `none`, `username`; port 9 is forbidden."""
    program, wrapper = find_peer("danted"), find_peer("nss_wrapper")
    with _proxy(free_port()) as running:
        me = pwd.getpwuid(os.geteuid())
        users = {me.pw_name: me, "nobody": pwd.getpwnam("nobody")}
        other = "nobody" if me.pw_uid == 0 else me.pw_name
        folder = running.folder
        (folder / "passwd").write_text(
            "".join(f"{one.pw_name}:x:{one.pw_uid}:{one.pw_gid}::/:/bin/false\n" for one in users.values())
            + f"{USER}:x:54321:54321::/:/bin/false\n"
        )
        groups = {one.pw_gid: grp.getgrgid(one.pw_gid).gr_name for one in users.values()}
        (folder / "group").write_text("".join(f"{name}:x:{number}:\n" for number, name in groups.items()))
        (folder / "shadow").write_text(f"{USER}:{_HASH}:19000:0:99999:7:::\n")
        (folder / "dante.conf").write_text(
            _DANTE.format(folder=folder, port=running.port, outside=OUTSIDE, methods=" ".join(methods),
                          privileged=me.pw_name, unprivileged=other)
        )  # fmt: skip
        files = {f"NSS_WRAPPER_{name.upper()}": str(folder / name) for name in ("hosts", "passwd", "group", "shadow")}
        running.start([program, "-f", folder / "dante.conf"], running.port, LD_PRELOAD=str(wrapper), **files)
        yield running


@contextmanager
def running_squid(*logins: str) -> Iterator[RunningProxy]:
    """Squid, which asks for one of these logins (none: lets everybody through); port 9 is forbidden."""
    program = find_peer("squid")
    with _proxy(free_port()) as running:
        folder = running.folder
        (folder / "users").write_text(f"{USER}:{_HASH}\n")
        asked = "\n".join(LOGINS[login].format(folder=folder) for login in logins)
        allowed = "localhost"
        if logins:
            asked += "\nacl known proxy_auth REQUIRED"
            allowed = "known"
        (folder / "squid.conf").write_text(
            _SQUID.format(port=running.port, folder=folder, outside=OUTSIDE, logins=asked, allowed=allowed)
        )
        if os.geteuid() == 0:
            shutil.chown(folder, "proxy")
        running.start([program, "-N", "-f", folder / "squid.conf"], running.port)
        yield running


@contextmanager
def running_ssh() -> Iterator[RunningProxy]:
    """OpenSSH's client with -D, and the server behind it, that connects and resolves; its log is the server's."""
    server, client, keygen = find_peer("sshd"), find_peer("ssh"), find_peer("ssh-keygen")
    wrapper = find_peer("nss_wrapper")
    with _proxy(free_port()) as running:
        folder, port = running.folder, free_port()
        for name in ("host", "user"):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "sshd_config").write_text(_SSHD.format(port=port, folder=folder))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # the package leaves it to its service
        hosts = {"LD_PRELOAD": str(wrapper), "NSS_WRAPPER_HOSTS": str(folder / "hosts")}
        running.start([server, "-D", "-E", folder / "log", "-f", folder / "sshd_config"], port, **hosts)
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"]
        where: list[str | Path] = [
            f"{pwd.getpwuid(os.geteuid()).pw_name}@127.0.0.1",
            "-p",
            str(port),
            "-i",
            folder / "user",
        ]
        switches = [word for option in options for word in ("-o", option)]
        running.start([client, "-F", "none", "-N", "-D", f"127.0.0.1:{running.port}", *switches, *where], running.port)
        yield running
