"""The command `postroom`: everything that an administrator does (SPEC section 4, door 3)."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from copy import copy

import typer

from ..errors import GatewayError, InvalidInput, edge
from . import (
    accounts,
    applications,
    backup,
    check,
    circuits,
    docs,
    events,
    explain,
    queue,
    send,
    serve,
    settings,
    suppressions,
)

app = typer.Typer(
    name="postroom",
    help="A gateway for outgoing mail: takes messages, keeps them, sends each through the right account.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """A part of `app` with one command stays a group."""


app.command("serve")(serve.serve)
app.command("send")(send.send)
accounts.app.command("sleep")(circuits.sleep)
accounts.app.command("wake")(circuits.wake)
app.add_typer(accounts.app, name="accounts")
app.add_typer(applications.app, name="applications")
app.add_typer(queue.app, name="queue")
app.add_typer(suppressions.app, name="suppressions")
app.add_typer(settings.app, name="settings")
app.command("why")(queue.why)
app.command("explain")(explain.explain)
app.command("events")(events.events)
app.command("status")(check.status)
app.command("check")(check.check)
app.add_typer(backup.keys, name="keys")
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.add_typer(docs.app, name="docs")


def main() -> None:
    """Run the command; an error is told on standard error, with its exit status (sysexits.h)."""
    try:
        part_named(app, sys.argv[1:])()
    except GatewayError as error:
        print(_told(error), file=sys.stderr)
        sys.exit(edge(error).exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does.
        sys.stderr.close()
        sys.exit(141)


def part_named(whole: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """`whole` with the command alone that `words` begin with: typer builds everything that it is given, at each start.

    All of it where they begin with something else, as for its help or with a name that is none.
    """
    commands = [one for one in whole.registered_commands if one.name in words[:1]]
    groups = [copy(one) for one in whole.registered_groups if one.name in words[:1]]
    if not commands and not groups:
        return whole
    for one in groups:
        assert one.typer_instance is not None
        one.typer_instance = part_named(one.typer_instance, words[1:])
    part = copy(whole)
    part.registered_commands, part.registered_groups = commands, groups
    return part


def _told(error: GatewayError) -> str:
    if "--json" in sys.argv:
        body: dict[str, object] = {"error": type(error).__name__, "detail": str(error)}
        if isinstance(error, InvalidInput):
            body["errors"] = [{"field": f.field, "fault": f.fault, "mend": f.mend} for f in error.faults]
        return json.dumps(body, ensure_ascii=False)
    if isinstance(error, InvalidInput):
        return "\n".join(f"postroom: {fault}" for fault in error.faults)
    return f"postroom: {error}"
