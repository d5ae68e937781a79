"""`postroom check` and `postroom status`: how things are."""

from __future__ import annotations

from collections.abc import Iterator
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
    """Show whether mail is sent and held, and each account with its health and deliveries by state."""
    answer: dict[str, Any] = ask(data, "GET", "/v1/status")
    if as_json:
        print_json(answer)
        return
    typer.echo(f"{answer.get('hostname', '')}: {'delivering' if answer.get('running') else 'not running'}")
    for line in _switches(answer):
        typer.echo(line)
    rows = [
        account | _waits(account) | {"deliveries": [f"{n} {state}" for state, n in account["counts"].items() if n]}
        for account in answer["accounts"]
    ]
    print_table(("account", "kind", "enabled", "health", "until", "deliveries", "reason"), rows, empty="no accounts")


def _switches(answer: dict[str, Any]) -> Iterator[str]:
    """What keeps mail back, with the command that lets it go."""
    if not answer["sending_enabled"]:
        yield "sending is switched off: postroom settings set sending_enabled on"
    if answer["guard_is_lost"]:
        yield "nothing leaves: what is stored for the staging guard does not count (postroom check)"
    if answer["redirected_to"]:
        yield f"the staging guard is on: mail for recipients that it does not list goes to {answer['redirected_to']}"
    if answer["next_batch"]:
        yield f"the next batch leaves at {answer['next_batch']}: batch_interval is {answer['batch_interval']}"
    if answer["hold_pending_at_start"]:
        yield "at the next start everything that waits is held: hold_pending_at_start is on"
    if answer["held"]:
        yield f"{answer['held']} held: postroom queue release --all"


def _waits(account: dict[str, Any]) -> dict[str, Any]:
    """Why the account sends nothing now, and until when."""
    if account["reason"] or not account["limit"]:
        return {}
    return {"reason": f"it has reached {account['limit']}", "until": account["limit_until"]}
