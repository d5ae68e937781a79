"""`postroom serve`: the gateway itself."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Data, settings


def serve(
    hints: Annotated[bool, typer.Option("--hints", help="Say how to send a first message.")] = False,
    data: Data = None,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; SIGHUP reads certificates and settings again."""
    from ..daemon.process import run

    run(settings(data), hints=hints)
