"""Commands to copy that send a first message and show it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from ..config import Settings


def command() -> str:
    """How this program is called from the shell that called it."""
    name = Path(sys.argv[0])
    found = shutil.which("postroom")
    if name.name != "postroom":
        return f"{shlex.quote(sys.executable)} -m postroom"
    if found and Path(found).resolve() == name.resolve():
        return "postroom"
    shown = os.path.relpath(name)
    return shlex.quote(shown if not shown.startswith("..") else str(name))


def first_message(settings: Settings, address: str, port: int) -> str:
    """The text; `address` and `port` are of a listener without TLS."""
    data = (
        ""
        if settings.data == Path("data") or "POSTROOM_DATA" in os.environ
        else f" --data {shlex.quote(str(settings.data))}"
    )
    call = command()
    at = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    who = "--from app@example.org --to you@example.org"
    python = (
        "import smtplib; from email.message import EmailMessage as M; m = M(); "
        "m['From'], m['To'], m['Subject'] = 'app@example.org', 'you@example.org', 'Hello'; "
        f"m.set_content('It works.'); smtplib.SMTP('{address}', {port}).send_message(m)"
    )
    curl = f"curl smtp://{at} --mail-from app@example.org --mail-rcpt you@example.org -T -"
    return f"""
Send a first message, in another terminal, with one of these:
  {call} send{data} {who} --subject Hello --text "It works." --wait
  swaks --server {at} {who}
  printf 'Subject: Hello\\r\\n\\r\\nIt works.\\r\\n' | {curl}
  python3 -c "{python}"

Show what came, then the newest message in full:
  {call} queue list{data}
  {call} queue show{data} last --content

So far everything ends in the sandbox: nothing leaves. A real account:
  {call} accounts add{data} relay --host smtp.example.org --username ann --for local --allow-sender '*@example.org'

Ctrl-C ends the gateway; what waits goes on at the next start.
"""
