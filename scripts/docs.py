"""Writes the pages and tables of docs/ that the code declares; `--check` only says which are out of step.

Whole pages: settings, commands, endpoints, errors, fields. Tables: between `<!-- drawn: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import cast

from typer.testing import CliRunner

from postroom.api import create_app
from postroom.cli import app
from postroom.errors import EDGES
from postroom.gateway import Gateway
from postroom.model.quantity import format_duration
from postroom.model.queue import FINAL, TRANSITIONS, WAITING, DeliveryState
from postroom.policy import classify
from postroom.policy.classify import Action
from postroom.policy.findings import findings
from postroom.protocol.smtp import client_states as client
from postroom.protocol.smtp import server_states as server
from scripts.fields_page import fields_page

DOCS = Path(__file__).parent.parent / "docs"
DRAWN = re.compile(r"(<!-- drawn: ([a-z-]+) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)


def printed(*arguments: str) -> str:
    """What `postroom ARGUMENTS` prints."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    if result.exit_code != 0:
        raise SystemExit(f"postroom {' '.join(arguments)} ended with {result.exit_code}: {result.output}")
    return result.stdout.rstrip("\n") + "\n"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def errors_page() -> str:
    """Every error class, and how each edge tells it."""
    rows = []
    for cls, edge in EDGES.items():
        summary = (cls.__doc__ or "").strip().split("\n")[0].replace("|", "\\|")
        smtp = f"{edge.reply_code} {edge.enhanced}"
        rows.append((f"`{cls.__name__}`", summary, smtp, str(edge.http_status), str(edge.exit_status)))
    head = ("error", "meaning", "SMTP reply", "HTTP status", "exit status")
    return (
        "# Errors and what each edge says of them\n\n"
        "Written by `make docs` from `postroom/errors.py`. A `Refused` may carry a reply code and status of its own;\n"
        "an error without a row is told as the nearest parent that has one.\n\n"
    ) + table(head, rows)


def states_table() -> str:
    """A row for each state: what it is, and where a delivery may go from there."""
    rows = []
    for state in DeliveryState:
        kind = "ended" if state in FINAL else "waiting" if state in WAITING else ""
        ways = [f"{target.value} ({who})" for (source, target), who in TRANSITIONS.items() if source is state]
        rows.append((f"`{state.value}`", kind, "; ".join(ways) or "nowhere"))
    return table(("state", "kind", "may go to (who moves it)"), rows)


def transitions_table() -> str:
    """States against states: who moves a delivery from the row to the column."""
    targets = [state for state in DeliveryState if any(target is state for _, target in TRANSITIONS)]
    rows = []
    for source in DeliveryState:
        if source in FINAL:
            continue
        cells = ["+" if (source, target) in TRANSITIONS else "-" for target in targets]
        rows.append((f"**{source.value}**", *cells))
    return table(("from \\ to", *(target.value for target in targets)), rows)


def endpoints_page() -> str:
    """Every route of `/v1` with the first line of what it does."""
    rows = []
    paths = create_app(cast(Gateway, None)).openapi()["paths"]
    for path in sorted(paths):
        for method, operation in paths[path].items():
            summary = operation.get("description", "").split("\n")[0]
            rows.append((f"`{method.upper()} {path}`", summary))
    return (
        "# Endpoints\n\n"
        "Written by `make docs` from the routes. The running gateway serves them on `control.sock` in its data\n"
        "folder; `GET /v1/openapi.json` there describes what goes in and comes out. Errors are problem details (RFC\n"
        "9457), see [errors](errors.md).\n\n"
    ) + table(("endpoint", "what it does"), rows)


def moves_table(moves: Mapping[tuple[int, int], IntEnum], states: type[IntEnum]) -> str:
    """A row for each state of the SMTP client: what may happen there, and where it leads."""
    rows = []
    for state in states:
        ways = [f"{client.Cause(cause).name} -> {to.name}" for (source, cause), to in moves.items() if source == state]
        rows.append((f"`{state.name}`", "; ".join(ways) or "nothing"))
    return table(("state", "cause -> next state"), rows)


def server_table() -> str:
    """A row for each state of the SMTP server: the commands that are in order, and where each leads."""
    rows = []
    for state, ways in server.ALLOWED.items():
        rows.append(
            (f"`{state.value}`", "; ".join(f"{verb.value} -> {to.value}" for verb, to in ways.items()) or "nothing")
        )
    return table(("state", "command -> next state"), rows)


#: What becomes of the account or the delivery, by the rule's action.
FOLLOWS = {
    Action.BOUNCE: "bounced",
    Action.RETRY: "tried again",
    Action.SPLIT: "the rest goes with the next transaction, at once",
    Action.PLAIN: "once more at once, without parameters",
    Action.FEWER: "one connection less",
    Action.SLOWER: "slower",
    Action.SLEEP: "sleeps",
    Action.STOP: "needs attention",
}


def rules_table() -> str:
    """A row for each rule about a reply, in the order in which they are tried."""
    rows = []
    for rule in classify.rules():
        follows = FOLLOWS[rule.action]
        if rule.wait is not None:
            follows += f" for {format_duration(rule.wait)}" if rule.action is Action.SLEEP else ""
        stages = ", ".join(stage for stage in classify.Stage if stage in rule.stages)
        reply = " ".join(rule.reply.split())
        row = (f"`{reply}`", stages, rule.scope, follows, rule.cause, rule.advice)
        rows.append(tuple(cell.replace("|", "\\|") for cell in row))
    return table(("reply", "stage", "about", "what follows", "cause", "what to do"), rows)


def failure_rules_table() -> str:
    """A row for each rule about a connection that could not be had."""
    rows = [(f"`{rule.error}`", FOLLOWS[rule.action], rule.cause, rule.advice) for rule in classify.failure_rules()]
    return table(("error", "the account", "cause", "what to do"), rows)


def nobody_rules_table() -> str:
    """A row for each reply that says that a recipient does not exist."""
    rows = [
        (f"`{' '.join(rule.reply.split())}`", f"`{rule.enhanced.pattern}`" if rule.enhanced is not None else "any")
        for rule in classify.nobody_rules()
    ]
    shown = [(reply, "none" if enhanced == "``" else enhanced.replace("|", "\\|")) for reply, enhanced in rows]
    return table(("made for the reply", "enhanced status"), shown)


def findings_table() -> str:
    """A row for each thing that a test of a connection finds by itself."""
    rows = [(f"`{one.name}`", one.cause, one.advice) for one in findings().values()]
    return table(("finding", "cause", "what to do"), rows)


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": lambda: printed("docs", "settings"),
    "commands.md": lambda: printed("docs", "commands"),
    "errors.md": errors_page,
    "endpoints.md": endpoints_page,
    "fields.md": fields_page,
}
TABLES: dict[str, Callable[[], str]] = {
    "states": states_table,
    "transitions": transitions_table,
    "client-session": lambda: moves_table(client.SESSION_MOVES, client.SessionState),
    "client-transaction": lambda: moves_table(client.TRANSACTION_MOVES, client.Step),
    "server": server_table,
    "rules": rules_table,
    "failure-rules": failure_rules_table,
    "nobody-rules": nobody_rules_table,
    "findings": findings_table,
}


def drawn_pages() -> dict[Path, str]:
    """Every generated page as it should be, and every page with drawn tables as it should be."""
    pages = {DOCS / name: write() for name, write in PAGES.items()}
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if path not in pages and DRAWN.search(text):
            pages[path] = DRAWN.sub(lambda found: found[1] + TABLES[found[2]]() + found[4], text)
    return pages


def main() -> int:
    """Exit status: 1 when `--check` finds a page out of step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; say what is out of step")
    check = parser.parse_args().check
    stale = 0
    for path, wanted in drawn_pages().items():
        if path.is_file() and path.read_text(encoding="utf-8") == wanted:
            continue
        stale += 1
        if check:
            print(f"docs/{path.relative_to(DOCS)} is out of step with the code: run `make docs`", file=sys.stderr)
        else:
            path.write_text(wanted, encoding="utf-8")
            print(f"wrote docs/{path.relative_to(DOCS)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
