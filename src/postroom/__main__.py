"""`python -m postroom` is the command `postroom`."""

from __future__ import annotations

from .cli import main

main()
