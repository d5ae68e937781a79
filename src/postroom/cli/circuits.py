"""`postroom accounts sleep` and `wake`: by hand."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .accounts import Name, told
from .connection import ask
from .options import AsJson, Data, quoted
from .output import print_fields, print_json

Duration = Annotated[str, typer.Option("--for", metavar="DURATION", help="How long, as in 30m, 2h or 1d.")]


def sleep(name: Name, duration: Duration = "1h", data: Data = None, as_json: AsJson = False) -> None:
    """Let an account send nothing for a while; its mail waits, what is being sent ends."""
    _print(ask(data, "POST", f"/v1/accounts/{quoted(name)}/sleep", {"for": duration}), as_json)


def wake(name: Name, data: Data = None, as_json: AsJson = False) -> None:
    """Let an account send again that sleeps or needs attention."""
    _print(ask(data, "POST", f"/v1/accounts/{quoted(name)}/wake"), as_json)


def _print(circuit: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(circuit)
    else:
        print_fields(told(circuit))
