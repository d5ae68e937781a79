"""A private Dovecot that serves submission: by root under Dovecot's own users, by anyone else under his own."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.traffic import answers, free_port, wait_until
from tests.conftest import find_peer
from tests.interop.conftest import Certificates

LOGIN = ("mailbox", "correct horse")

#: What every one has, whatever it serves.
HEAD = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
listen = 127.0.0.1
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {login_user}
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
mail_location = maildir:{folder}/mail/%u
passdb {{
  driver = passwd-file
  args = {folder}/passwords
}}
userdb {{
  driver = static
  args = uid={mail_user} gid={mail_group} home={folder}/mail
}}
service anvil {{
  chroot =
}}
"""

CONFIGURATION = """
protocols = submission
hostname = dovecot.example
ssl = required
auth_mechanisms = {mechanisms}
login_log_format_elements = user=<%u> method=%m %c lport=%a
submission_relay_host = 127.0.0.1
submission_relay_port = {relay_port}
submission_backend_capabilities = 8BITMIME DSN
service submission-login {{
  chroot =
  inet_listener submission {{
    port = {starttls_port}
  }}
  inet_listener submissions {{
    port = {tls_port}
    ssl = yes
  }}
}}
"""


@dataclass(frozen=True)
class Dovecot:
    """A running one; it hands on what it takes while its client waits."""

    starttls_port: int
    tls_port: int
    log_file: Path

    def log(self) -> str:
        """Its log so far."""
        return self.log_file.read_text()


@contextmanager
def running_dovecot(
    certificates: Certificates, relay_port: int, *, mechanisms: str = "plain login", service: str = ""
) -> Iterator[Dovecot]:
    """One that hands on to `relay_port` of this machine; `service` is added to its configuration."""
    with prepared(certificates, LOGIN[0]) as folder:
        running = Dovecot(free_port(), free_port(), folder / "log")
        text = CONFIGURATION.format(
            mechanisms=mechanisms,
            relay_port=relay_port,
            starttls_port=running.starttls_port,
            tls_port=running.tls_port,
        )
        with serving(folder, text + service, lambda: answers(running.starttls_port)):
            yield running


@contextmanager
def prepared(certificates: Certificates, *mailboxes: str) -> Iterator[Path]:
    """A folder with a certificate and these mailboxes, all with the password of `LOGIN`; it goes at the end."""
    folder = Path(tempfile.mkdtemp(prefix="postroom-dovecot-"))
    folder.chmod(0o755)  # its other users must get through
    for name, source in {"cert.pem": certificates.certificate, "key.pem": certificates.key}.items():
        shutil.copy(source, folder / name)
    for name in ("state", "mail"):
        (folder / name).mkdir()
    (folder / "passwords").write_text("".join(f"{mailbox}:{{PLAIN}}{LOGIN[1]}\n" for mailbox in mailboxes))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def serving(folder: Path, text: str, is_there: Callable[[], bool]) -> Iterator[None]:
    """While a Dovecot with this configuration beside `HEAD` runs, from when `is_there`."""
    program = find_peer("dovecot").parents[2] / "sbin" / "dovecot"
    (folder / "dovecot.conf").write_text(HEAD.format(folder=folder, **users(folder)) + text)
    process = subprocess.Popen(
        [str(program), "-F", "-c", str(folder / "dovecot.conf")], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        wait_until(lambda: is_there() or process.poll() is not None, 20, "dovecot greets")
        if process.poll() is not None:
            assert process.stderr is not None
            log = folder / "log"
            raise AssertionError(process.stderr.read().decode() + (log.read_text() if log.exists() else ""))
        yield
    finally:
        process.terminate()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def users(folder: Path) -> dict[str, object]:
    """Whom its processes run as; Dovecot's package made `dovecot` and `dovenull`, and mail is never read by root."""
    if os.geteuid() != 0:
        me = pwd.getpwuid(os.geteuid())
        own = {"user": me.pw_name, "login_user": me.pw_name, "group": grp.getgrgid(me.pw_gid).gr_name}
        return own | {"mail_user": me.pw_uid, "mail_group": me.pw_gid}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder / "mail", nobody.pw_uid, nobody.pw_gid)
    of_package = {"user": "dovecot", "group": "dovecot", "login_user": "dovenull"}
    return of_package | {"mail_user": nobody.pw_uid, "mail_group": nobody.pw_gid}
