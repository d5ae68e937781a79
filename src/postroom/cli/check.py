"""`postroom check` and `postroom status`: how things are."""

from __future__ import annotations

from typing import Any

import typer

from .connection import ask
from .options import AsJson, Data
from .output import print_json, print_table


def check(data: Data = None, as_json: AsJson = False) -> None:
    """Look for what is wrong and say how to mend it; exit status 1 when something is."""
    answer = ask(data, "GET", "/v1/check")
    findings = answer["findings"]
    if as_json:
        print_json(answer)
    else:
        for one in findings:
            mend = f" -> {one['mend']}" if one["mend"] else ""
            typer.echo(f"{one['level']:<8} {one['subject']}: {one['what']}{mend}")
    if any(one["level"] == "error" for one in findings):
        raise typer.Exit(1)


def status(data: Data = None, as_json: AsJson = False) -> None:
    """Show each account with its health and how many deliveries are in each state."""
    answer: dict[str, Any] = ask(data, "GET", "/v1/status")
    if as_json:
        print_json(answer)
        return
    typer.echo(f"{answer.get('hostname', '')}: {'delivering' if answer.get('running') else 'not running'}")
    rows = [
        account | {"deliveries": [f"{count} {state}" for state, count in account["counts"].items() if count]}
        for account in answer["accounts"]
    ]
    print_table(("account", "kind", "enabled", "health", "until", "deliveries", "reason"), rows, empty="no accounts")
