"""The password of an account as a command gets it: never from the command line, which others see."""

from __future__ import annotations

import sys
from typing import Any

import typer

from ..accounts.filling import with_preset
from ..errors import Fault, InvalidInput


def add_password(fields: dict[str, Any], from_stdin: bool, *, needed: bool) -> None:
    """The password that goes with a user name: from standard input, a file or a prompt, never the command line."""
    if from_stdin:
        fields["password"] = sys.stdin.readline().rstrip("\r\n")
        return
    username = with_preset(fields).get("username", "") if needed else ""
    if not username or "password" in fields or fields.get("authentication", "password") != "password":
        return
    if sys.stdin.isatty():
        fields["password"] = typer.prompt(f"Password of {username}", hide_input=True)
        return
    raise InvalidInput(Fault("password", "there is none", "give it with --password-stdin or --password-file FILE"))
